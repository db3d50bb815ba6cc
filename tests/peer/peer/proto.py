# SPDX-License-Identifier: Apache-2.0
"""The OAP's interface, compiled from proto/skywalking when it is needed.

Descriptors instead of generated modules: protoc would write packages named
"profile" and "common", and the former hides a module of the standard library.
"""

import pathlib
import subprocess
import tempfile

from google.protobuf import descriptor_pb2, message_factory

ROOT = pathlib.Path(__file__).resolve().parents[3] / "proto" / "skywalking"
PACKAGE = "skywalking.v3."


def _compile():
    files = sorted(str(p.relative_to(ROOT)) for p in ROOT.rglob("*.proto"))
    with tempfile.TemporaryDirectory() as out:
        path = pathlib.Path(out) / "descriptors"
        subprocess.run(["protoc", f"-I{ROOT}", f"--descriptor_set_out={path}", *files], check=True)
        return descriptor_pb2.FileDescriptorSet.FromString(path.read_bytes())


_files = _compile().file
_classes = message_factory.GetMessages(_files)

# service name -> {method name: (request class, client streams?)}
SERVICES = {
    PACKAGE + service.name: {
        method.name: (_classes[method.input_type.lstrip(".")], method.client_streaming)
        for method in service.method
    }
    for file in _files for service in file.service
}


def message(name):
    """The class of a message, by its name without the package."""
    return _classes[PACKAGE + name]


Commands = message("Commands")


def plain(msg):
    """A message as a dict of plain values: all fields, enums by name."""
    def value(field, v):
        if field.message_type:
            return plain(v)
        return field.enum_type.values_by_number[v].name if field.enum_type else v

    return {
        f.name: [value(f, v) for v in getattr(msg, f.name)] if f.label == f.LABEL_REPEATED
        else value(f, getattr(msg, f.name))
        for f in msg.DESCRIPTOR.fields
    }
