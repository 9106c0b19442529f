// Sends drawn frames to a service and prints their verdicts, through shared memory where it can.
//
//   send_frames ENDPOINT [frames [height width [socket]]]
//
// Ends with 0 only if every frame has a verdict.
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <string>
#include <vector>

#include <algan/client.h>

namespace {

// A disc that moves, on a grey ground.
void draw(std::vector<std::uint8_t>& bgr, std::int64_t height, std::int64_t width, int step) {
  const std::int64_t centre_y = height / 2, centre_x = (width / 2 + 5 * step) % width;
  const std::int64_t radius = height / 4;
  for (std::int64_t y = 0; y < height; ++y) {
    for (std::int64_t x = 0; x < width; ++x) {
      const std::int64_t dy = y - centre_y, dx = x - centre_x;
      const bool inside = dy * dy + dx * dx < radius * radius;
      std::uint8_t* pixel = bgr.data() + 3 * (y * width + x);
      pixel[0] = pixel[1] = pixel[2] = inside ? 200 : 60;
    }
  }
}

void print(const algan::Verdict& verdict) {
  std::printf("frame %lld %s: %s %s", static_cast<long long>(verdict.frame_id),
              verdict.part_id.c_str(), verdict.verdict.c_str(), verdict.reason.c_str());
  for (const algan::BoxVerdict& box : verdict.boxes) {
    std::printf(" %.4f", box.score.value_or(0.0));
  }
  std::printf("\n");
}

int run(const std::vector<std::string>& arguments) {
  const auto argument = [&](std::size_t i, const char* otherwise) {
    return i < arguments.size() ? arguments[i] : std::string(otherwise);
  };
  const int frames = std::stoi(argument(1, "10"));
  const std::int64_t height = std::stoll(argument(2, "480"));
  const std::int64_t width = std::stoll(argument(3, "640"));

  algan::ClientOptions options;
  options.endpoint = argument(0, "");
  options.camera = "example";
  options.shared_memory = argument(4, "") != "socket";
  algan::Client client(options);

  std::vector<std::uint8_t> bgr(static_cast<std::size_t>(3 * height * width));
  for (int i = 0; i < frames; ++i) {
    draw(bgr, height, width, i);
    algan::FrameOptions more;
    more.part_id = "part-" + std::to_string(i);
    if (i % 2 == 1) more.boxes = {{0.0, 0.0, 32.0, 32.0}, {8.0, 8.0, 40.0, 40.0}};
    client.send({bgr.data(), height, width, 3 * width, algan::PixelFormat::kBgr8}, more);
    for (const algan::Verdict& verdict : client.poll()) print(verdict);
  }
  while (client.account().unanswered > 0) {
    const auto verdicts = client.poll(std::chrono::seconds(10));
    if (verdicts.empty()) break;  // those left are not OK
    for (const algan::Verdict& verdict : verdicts) print(verdict);
  }
  const algan::ClientAccount account = client.account();
  std::printf("sent %llu, answered %llu, through %s\n",
              static_cast<unsigned long long>(account.sent),
              static_cast<unsigned long long>(account.answered),
              client.shared() ? "shared memory" : "the socket");
  return account.answered == account.sent ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "expected ENDPOINT [frames [height width [socket]]]\n");
    return 2;
  }
  try {
    return run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
