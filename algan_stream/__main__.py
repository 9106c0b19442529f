"""`python -m algan_stream` is `algan-stream`."""

from algan_stream.cli import main

if __name__ == "__main__":
    main()
