"""A PLC in a process of its own: a real OPC UA server, and a program that takes each valid verdict.

    python opcua_plc.py SETTINGS

`SETTINGS` is JSON: `port`, `blocks` (each the node ids of its variables by name), `folder`; where there is
security also `certificate`, `key`, `clients` (certificates that are trusted), `user` and `password`. Says in
lines of JSON which verdicts it takes, and how each block's status changes. While `FOLDER/silent` exists, it
acknowledges nothing.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from pathlib import Path
from typing import Any


def _say(**what: object) -> None:
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


async def _secured(server: Any, settings: dict[str, Any]) -> None:
    from asyncua import ua

    if "certificate" in settings:
        server.set_security_policy([ua.SecurityPolicyType.Basic256Sha256_SignAndEncrypt])
        await server.load_certificate(settings["certificate"])
        await server.load_private_key(settings["key"])


def _users(settings: dict[str, Any]) -> Any:
    """Lets in who has a trusted certificate and the password."""
    from asyncua.crypto.permission_rules import User, UserRole

    trusted = [Path(file).read_bytes() for file in settings.get("clients", ())]

    class Manager:
        def get_user(
            self, iserver: Any, username: Any = None, password: Any = None, certificate: Any = None
        ) -> Any:
            if trusted and certificate not in trusted:
                return None
            if "user" in settings and (username, password) != (settings["user"], settings["password"]):
                return None
            return User(role=UserRole.Admin)

    return Manager()


async def _main(settings: dict[str, Any]) -> None:
    from asyncua import Server

    logging.getLogger("asyncua").setLevel(logging.CRITICAL)
    server = Server(user_manager=_users(settings))
    await server.init()
    server.set_endpoint(f"opc.tcp://127.0.0.1:{settings['port']}/plc")
    await server.set_application_uri("urn:plc")
    await _secured(server, settings)
    await server.register_namespace("urn:plc:program")
    blocks = [await _block(server, f"Block{i}", ids) for i, ids in enumerate(settings["blocks"])]
    folder, statuses = Path(settings["folder"]), [None] * len(blocks)
    async with server:
        _say(ready=True)
        while True:
            await asyncio.sleep(0.002)
            for i, block in enumerate(blocks):
                statuses[i] = await _cycle(i, block, statuses[i], silent=(folder / "silent").exists())
            if (folder / "tell").exists():
                (folder / "tell").unlink()
                _say(beat=await blocks[0]["Heartbeat"].read_value())


async def _block(server: Any, name: str, ids: dict[str, str]) -> dict[str, Any]:
    from asyncua import ua

    folder = await server.nodes.objects.add_object(2, name)
    texts, bits = ("Camera", "PartId", "Reason"), ("Ready", "Busy", "Valid")
    types = {"Score": ua.VariantType.Float, "FrameId": ua.VariantType.UInt32, "Verdict": ua.VariantType.Byte}
    nodes = {}
    for variable, node_id in ids.items():
        first: object = "" if variable in texts else False if variable in bits else 0
        # 16 bits with a sign, as many a PLC has them.
        kind = types.get(variable, ua.VariantType.Int16 if first == 0 and first is not False else None)
        place = ua.NodeId.from_string(node_id)
        nodes[variable] = await folder.add_variable(place, variable, first, varianttype=kind)
        await nodes[variable].set_writable()
    return nodes


async def _cycle(number: int, nodes: dict[str, Any], before: Any, *, silent: bool) -> list[bool]:
    from asyncua import ua

    values = {name: await node.read_value() for name, node in nodes.items()}
    status = [values["Ready"], values["Busy"], values["Valid"]]
    if status != before:
        _say(status=status, block=number)
    if values["Valid"] and values["Sequence"] != values["Acknowledged"] and not silent:
        _say(took={**values, "Score": repr(values["Score"])}, block=number)
        await nodes["Acknowledged"].write_value(ua.Variant(values["Sequence"], ua.VariantType.Int16))
    return status


if __name__ == "__main__":
    asyncio.run(_main(json.loads(sys.argv[1])))
