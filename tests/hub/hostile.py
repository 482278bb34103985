"""A corpus of hostile and damaged checkpoint files, written byte by byte.

``write_corpus(folder, probe)`` writes the files; ``probe`` is the name of a file that every armed one tries to create.
Run as a program (``python hostile.py FOLDER``), it reads every file of a corpus under a memory limit and prints, as
JSON, what came of each.
"""

import codecs
import gzip
import io
import json
import pickle
import random
import resource
import struct
import sys
import tarfile
import time
import zipfile
from collections import OrderedDict
from pathlib import Path

MEMORY = 1024 * 2**20
PROBE_MODULE = "portraitzoo_probe"

# -- an assembler for pickles -----------------------------------------------------------------------------------------


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(data)]) + data


def put(*values) -> bytes:
    """Opcodes that push ready-made opcodes (bytes), texts, numbers and tuples of such."""
    parts = []
    for value in values:
        if isinstance(value, bytes):
            parts.append(value)
        elif value is None:
            parts.append(b"N")
        elif isinstance(value, bool):
            parts.append(b"\x88" if value else b"\x89")
        elif isinstance(value, str):
            parts.append(text(value))
        elif isinstance(value, int):
            parts.append(number(value))
        else:
            parts.append(b"(" + put(*value) + b"t")
    return b"".join(parts)


def name(module: str, attribute: str) -> bytes:
    return f"c{module}\n{attribute}\n".encode()


def call(module: str, attribute: str, *args) -> bytes:
    return name(module, attribute) + put(args) + b"R"


def call_value(callee: bytes, *args) -> bytes:
    return callee + put(args) + b"R"


def whole(body: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + body + b"."


# -- what would run code ----------------------------------------------------------------------------------------------


def armed(probe: str) -> dict[str, bytes]:
    """Pickle bodies that, in the standard unpickler, create the file ``probe`` (or try something as bad)."""
    touch = f"touch {probe}"
    write = f"open({probe!r}, 'w').close()"
    code_object = call("marshal", "loads", b"C\x02\xe3\x00")
    os_module = call("builtins", "__import__", "os")
    plain = {
        "os_system": call("os", "system", touch),
        "posix_system": call("posix", "system", touch),
        "nt_system": call("nt", "system", touch),
        "os_popen": call("os", "popen", touch),
        "os_remove": call("os", "remove", __file__ + ".nothing"),
        "os_fork": call("os", "fork"),
        "os_abort": call("os", "abort"),
        "sys_exit": call("sys", "exit", 3),
        "subprocess_call": call("subprocess", "check_output", touch, -1, None)
        + b"0"
        + call("subprocess", "call", touch),
        "subprocess_popen": call("subprocess", "Popen", ("touch", probe)),
        "pty_spawn": call("pty", "spawn", "sh"),
        "eval": call("builtins", "eval", write),
        "exec": call("builtins", "exec", write),
        "python2_eval": call("__builtin__", "eval", write),
        "compile": call("builtins", "exec", call("builtins", "compile", write, "x", "exec")),
        "open_for_writing": call("builtins", "open", probe, "w"),
        "io_open": call("io", "open", probe, "w"),
        "import": call("builtins", "__import__", PROBE_MODULE),
        "import_module": call("importlib", "import_module", PROBE_MODULE),
        "global_of_module": name(PROBE_MODULE, "anything"),
        "pydoc_locate": call("pydoc", "locate", f"{PROBE_MODULE}.anything"),
        "pkgutil_resolve": call("pkgutil", "resolve_name", f"{PROBE_MODULE}:anything"),
        "getattr_chain": call_value(call("builtins", "getattr", os_module, "system"), touch),
        "attrgetter_chain": call_value(call_value(call("operator", "attrgetter", "system"), os_module), touch),
        "methodcaller": call_value(call("operator", "methodcaller", "system", touch), os_module),
        "partial": call_value(call("functools", "partial", name("os", "system"), touch)),
        "reduce": call("functools", "reduce", name("builtins", "eval"), (write,)),
        "map": call("builtins", "list", call("builtins", "map", name("builtins", "eval"), (write,))),
        "subclasses": call("builtins", "getattr", name("builtins", "object"), "__subclasses__"),
        "globals_of_function": call("builtins", "getattr", name("collections", "namedtuple"), "__globals__"),
        "runpy_path": call("runpy", "run_path", "/nonexistent.py"),
        "runpy_code": call("runpy", "_run_code", write, b"}", None, "x", None, None, None),
        "torch_hub": call("torch.hub", "load", "someone/something", "model"),
        "torch_load": call("torch", "load", "/nonexistent"),
        "torch_serialization": call("torch.serialization", "load", "/nonexistent"),
        "torch_package": call("torch.package", "PackageImporter", "/nonexistent"),
        "torch_ops": call("torch._C._dispatch", "eval", write),
        "numpy_load": call("numpy", "load", "/nonexistent", None, True),
        "numpy_exec": call("numpy.testing._private.utils", "runstring", write, b"}"),
        "pickle_loads": call("pickle", "loads", b"C\x04\x80\x02N."),
        "marshal_function": call("types", "FunctionType", code_object, b"}"),
        "code_type": call("types", "CodeType", 0, 0, 0, 0, 0, 0),
        "ctypes": call("ctypes", "CDLL", "libc.so.6"),
        "webbrowser": call("webbrowser", "open", "http://127.0.0.1:9/"),
        "urlopen": call("urllib.request", "urlopen", "http://127.0.0.1:9/"),
        "socket": call("socket", "create_connection", ("127.0.0.1", 9)),
        "rmtree": call("shutil", "rmtree", probe),
        "timeit": call("timeit", "timeit", write, "pass", None, 1),
        "profile": call("cProfile", "run", write),
        "pdb": call("pdb", "run", write),
        "interpreter": call("code", "interact"),
        "process_start": call("multiprocessing.process", "BaseProcess", None, name("os", "system"), "x", (touch,)),
        "logging_config": call("logging.config", "listen", 9030),
        "add_extension": call("copyreg", "add_extension", "os", "system", 7),
        "setattr_of_ours": call("builtins", "setattr", name("portraitzoo.hub.records", "Record"), "path", 1),
        "environ": call("os", "putenv", "PORTRAITZOO_PROBE", "1"),
        "omegaconf_resolver": call("omegaconf", "OmegaConf", "${oc.env:HOME}"),
        "fire_and_forget_weakref": call("weakref", "finalize", name("builtins", "object"), name("os", "system"), touch),
        "tensor_from_type": call("torch._tensor", "_rebuild_from_type_v2", name("os", "system"), None, (touch,), None),
        "parameter_of_call": call("torch._utils", "_rebuild_parameter", call("os", "system", touch), False, b"}"),
        "module_source": call(
            "torch_utils.persistence",
            "_reconstruct_persistent_obj",
            b"}(" + put("type", "class", "version", 6, "module_src", write, "class_name", "X", "state", b"}") + b"u",
        ),
        "persistence_of_code": call(
            "torch_utils.persistence", "_reconstruct_persistent_obj", call("os", "system", touch)
        ),
    }
    other_opcodes = {
        "inst": b"(" + text(touch) + b"ios\nsystem\n",
        "obj": b"(" + name("os", "system") + text(touch) + b"o",
        "newobj": name("os", "system") + put((touch,)) + b"\x81",
        "newobj_ex": name("subprocess", "Popen") + put((touch,)) + b"}(" + put("shell", True) + b"u\x92",
        "stack_global": text("os") + text("system") + b"\x93" + put((touch,)) + b"R",
        "dotted_global": name("os.path", "os.system") + put((touch,)) + b"R",
        "build_with_setstate": name("os", "system")
        + put(())
        + b"\x81}("
        + put("__setstate__", name("os", "system"))
        + b"ub"
        + text(touch)
        + b"b",
        "build_on_global": name("torch._utils", "_rebuild_tensor_v2") + b"N}(" + put("__defaults__", 1) + b"u\x86b",
        "build_on_our_class": name("collections", "OrderedDict")
        + put(())
        + b"R}("
        + put("items", name("os", "system"))
        + b"ub",
        "setitem_on_modules": name("sys", "modules") + put("os", None) + b"s",
        "append_to_path": name("sys", "path") + text("/nonexistent") + b"a",
        "extension_1": b"\x82\x07" + put((touch,)) + b"R",
        "extension_2": b"\x83\x07\x00" + put((touch,)) + b"R",
        "extension_4": b"\x84\x07\x00\x00\x00" + put((touch,)) + b"R",
        "persistent_text": b"Pos.system\n",
        "persistent_value": put(("module", name("os", "system"), touch, touch)) + b"Q",
        "persistent_storage": put(("storage", name("os", "system"), "0", "cpu", 4)) + b"Q",
        "persistent_call": put(("storage", call("os", "system", touch), "0", "cpu", 4)) + b"Q",
        "call_of_text": text("os.system") + put((touch,)) + b"R",
        "call_of_list": b"]" + put((touch,)) + b"R",
        "call_with_list": name("os", "system") + b"](" + text(touch) + b"eR",
        "storage_bytes": call("torch.storage", "_load_from_bytes", _bytes(whole(call("os", "system", touch)))),
        "storage_of_storage": call(
            "torch.storage",
            "_load_from_bytes",
            _bytes(legacy(call("torch.storage", "_load_from_bytes", _bytes(whole(call("os", "system", touch)))))),
        ),
    }
    return plain | other_opcodes


def _bytes(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


# -- containers -------------------------------------------------------------------------------------------------------


def bare(body: bytes) -> bytes:
    return whole(body)


def zipped(body: bytes) -> bytes:
    return zip_of({"archive/data.pkl": whole(body), "archive/data/0": bytes(16), "archive/version": b"3\n"})


def legacy(body: bytes) -> bytes:
    header = [0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}]
    return b"".join(pickle.dumps(part, 2) for part in header) + whole(body) + pickle.dumps([], 2)


def nvidia(body: bytes) -> bytes:
    """``body`` as an attribute of a persistent module in a dict of networks."""
    meta = b"}(" + put("type", "class", "version", 6, "module_src", "pass", "class_name", "Generator", "state")
    state = b"}(" + put("_parameters", b"}", "_buffers", b"}", "_modules", b"}", "extra") + body + b"u"
    record = name("torch_utils.persistence", "_reconstruct_persistent_obj") + b"(" + meta + state + b"utR"
    return whole(b"}(" + text("G_ema") + record + b"u", 3)


CONTAINERS = {"bare": bare, "zip": zipped, "legacy": legacy, "nvidia": nvidia}


def zip_of(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    return buffer.getvalue()


def tensor(size, stride, offset=0, *, cls="FloatStorage", numel=4, key="0") -> bytes:
    storage = put(("storage", name("torch", cls), key, "cpu", numel)) + b"Q"
    return call("torch._utils", "_rebuild_tensor_v2", storage, offset, tuple(size), tuple(stride), False, b"}")


# -- what would exhaust memory or time --------------------------------------------------------------------------------


def exhausting() -> dict[str, bytes]:
    """Whole files whose numbers ask for far more than the files hold. Every one must be refused."""
    huge = 2**40
    eight = struct.pack("<Q", huge)
    array = name("numpy.core.multiarray", "_reconstruct") + put((name("numpy", "ndarray"), (0,), "b")) + b"R"
    dtype = call("numpy", "dtype", "f8", False, True) + put((3, "<", None, None, None, -1, -1, 0)) + b"b"
    bodies = {
        "bytes8": b"\x8e" + eight,
        "bytes": b"B" + struct.pack("<I", 2**32 - 1),
        "bytearray8": b"\x96" + eight,
        "text8": b"\x8d" + eight,
        "text": b"X" + struct.pack("<I", 2**32 - 1),
        "old_string": b"T" + struct.pack("<i", 2**31 - 1),
        "old_string_negative": b"T" + struct.pack("<i", -1),
        "long4": b"\x8b" + struct.pack("<i", 2**31 - 1),
        "long4_negative": b"\x8b" + struct.pack("<i", -5),
        "frame": b"\x95" + struct.pack("<Q", 2**63),
        "memo_index_text": b"Np" + b"9" * 50 + b"\n",
        "memo_missing": b"j\xff\xff\xff\xff",
        "decimal_digits": b"L" + b"9" * 200_000 + b"L\n",
        "line_without_end": b"V" + b"a" * 100_000,
        "bytearray_call": call("builtins", "bytearray", huge),
        "bytes_call": call("builtins", "bytes", huge),
        "tuple_of_number": call("builtins", "tuple", huge),
        "codec_bomb": call("_codecs", "encode", "x", "zip"),
        "array_shape": array + put((1, (huge,), dtype, False, b"C\x08" + bytes(8))) + b"b",
        "array_shape_product": array + put((1, (2**30, 2**30, 2**30), dtype, False, b"C\x08" + bytes(8))) + b"b",
        "array_of_zero_size_items": array + put((1, (huge,), call("numpy", "dtype", "S0"), False, b"C\x00")) + b"b",
        "array_item_size": call("numpy", "dtype", "S99999999999"),
        "array_objects": call("numpy", "dtype", "O8", False, True),
        "array_void": call("numpy", "dtype", "V8", False, True),
        "array_buffer": call("numpy._core.numeric", "_frombuffer", b"C\x08" + bytes(8), dtype, (huge,), "C"),
        "key_is_list": b"}]Ns",
        "key_is_dict": b"}}Ns",
        "key_is_big_integer": b"}" + number(2**300) + b"Ns",
        "key_is_deep_tuple": b"}N" + b"\x85" * 200_000 + b"Ns",
        "key_doubles": b"})" + b"2\x86" * 60 + b"Ns",
        "key_collisions": b"}(" + b"".join(number(i * (2**61 - 1)) + b"N" for i in range(1, 100_000)) + b"u",
        "set_of_deep_tuple": b"\x8f(N" + b"\x85" * 200_000 + b"\x90",
        "too_many_instructions": b"N0" * 1_100_000 + b"N",
        "too_many_containers": b"(" + b"\x8f" * 600_000 + b"l",
        "odd_items": b"}(Nu",
        "empty_stack": b"000",
        "no_mark": b"Nt",
        "left_over": b"NNN",
        "left_over_mark": b"(((N",
        "duplicate_of_nothing": b"2",
        "unknown_instruction": b"\xff",
        "protocol_200": b"\x80\xc8N",
        "out_of_band_buffer": b"\x97",
        "read_only_buffer": b"N\x98",
        "name_is_number": put(1, 2) + b"\x93",
        "append_to_number": put(1, 2) + b"a",
        "state_of_number": put(1, 2) + b"b",
        "items_of_tensor": put(b")", "a", "b") + b"s",
    }
    files = {f"bare_{name_}": bare(body) for name_, body in bodies.items()}
    views = {
        "numel": tensor((4,), (1,), numel=huge),
        "numel_negative": tensor((4,), (1,), numel=-4),
        "numel_wrong": tensor((4,), (1,), numel=5),
        "numel_is_text": tensor((4,), (1,), numel="4"),
        "beyond": tensor((5,), (1,)),
        "offset_beyond": tensor((4,), (1,), 1),
        "offset_negative": tensor((1,), (1,), -1),
        "offset_huge": tensor((1,), (1,), 2**62),
        "offset_is_text": tensor((1,), (1,), "0"),
        "stride_negative": tensor((4,), (-1,), 3),
        "stride_huge": tensor((2,), (2**62,)),
        "stride_missing": tensor((2, 2), (1,)),
        "repeats": tensor((huge,), (0,)),
        "repeats_overflow": tensor((2**47, 2**47, 2**47), (0, 0, 0)),
        "axes": tensor((1,) * 100, (1,) * 100),
        "size_is_text": tensor(("4",), (1,)),
        "size_is_bool": tensor((True,), (1,)),
        "unknown_class": tensor((4,), (1,), cls="QUInt8Storage"),
        "missing_storage": tensor((4,), (1,), key="../../etc/passwd"),
        "key_is_number": tensor((4,), (1,), key=0),
        "storage_is_text": call("torch._utils", "_rebuild_tensor_v2", "abc", 0, (1,), (1,), False, b"}"),
        "too_few_arguments": call("torch._utils", "_rebuild_tensor_v2"),
        "parameter_of_nothing": call("torch._utils", "_rebuild_parameter", None, True, b"}"),
    }
    files |= {f"zip_tensor_{name_}": zipped(body) for name_, body in views.items()}
    several = b"(" + b"".join(tensor((2**22,), (0,)) for _ in range(100)) + b"l"
    return files | {
        "zip_tensors_repeat_together": zipped(several),
        "legacy_numel": legacy(put(("storage", name("torch", "FloatStorage"), "0", "cpu", huge, None)) + b"Q"),
        "legacy_unfilled": legacy(put(("storage", name("torch", "FloatStorage"), "0", "cpu", 2, None)) + b"Q"),
        "legacy_view_beyond": legacy(
            put(("storage", name("torch", "ByteStorage"), "0", "cpu", 4, ("v", 2, huge))) + b"Q"
        ),
        "nvidia_storage_numel": nvidia(
            call(
                "torch.storage",
                "_load_from_bytes",
                _bytes(legacy(put(("storage", name("torch", "FloatStorage"), "0", "cpu", huge, None)) + b"Q")),
            )
        ),
        "nvidia_class_name": whole(
            call("torch_utils.persistence", "_reconstruct_persistent_obj", b"}(" + put("class_name", 5) + b"u")
        ),
    }


# -- archives that are not what they seem -----------------------------------------------------------------------------


def odd_archives() -> dict[str, bytes]:
    """Archives that must be refused, each for its own reason."""
    data = whole(b"}")
    state = zipped(b"}(" + text("w") + tensor((4,), (1,)) + b"u")
    listed = bytearray(state)
    position = listed.rindex(b"PK\x01\x02")
    listed[position + 24 : position + 28] = struct.pack("<I", 2**31)
    encrypted = bytearray(state)
    for signature, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        begin = encrypted.index(signature) + place
        encrypted[begin] |= 1
    overlapping = bytearray(zip_of({"a/data.pkl": data, "a/data/0": bytes(2**16), "a/data/1": b"", "a/data/2": b""}))
    first = next(
        i
        for i in range(len(overlapping))
        if overlapping[i : i + 4] == b"PK\x01\x02" and b"a/data/0" in overlapping[i : i + 60]
    )
    central = bytes(overlapping[first : first + 46])
    for key in (b"a/data/1", b"a/data/2"):
        begin = overlapping.rindex(key) - 46
        overlapping[begin + 16 : begin + 28] = central[16:28]
        overlapping[begin + 42 : begin + 46] = central[42:46]
    other_tar = io.BytesIO()
    with tarfile.open(fileobj=other_tar, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("../../evil"), io.BytesIO())
    bomb_tar = io.BytesIO()
    with tarfile.open(fileobj=bomb_tar, mode="w") as archive:
        for member in ("storages", "tensors", "pickle"):
            link = tarfile.TarInfo(member)
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    return {
        "zip_without_data": zip_of({"archive/other.pkl": data}),
        "zip_two_roots": zip_of({"a/data.pkl": data, "b/data.pkl": data}),
        "zip_absolute_names": zip_of({"/etc/passwd": b"x", "../../evil": b"y"}),
        "zip_big_endian": zip_of({"a/data.pkl": data, "a/byteorder": b"big"}),
        "zip_bomb_data": zip_of({"a/data.pkl": b"\x80\x02" + b"N0" * 2**23 + b"N."}, zipfile.ZIP_DEFLATED),
        "zip_bomb_storage": zip_of({"a/data.pkl": data, "a/data/0": bytes(2**26)}, zipfile.ZIP_DEFLATED),
        "zip_bomb_lzma": zip_of({"a/data.pkl": data, "a/data/0": bytes(2**26)}, zipfile.ZIP_LZMA),
        "zip_listed_size": bytes(listed),
        "zip_encrypted": bytes(encrypted),
        "zip_overlapping": bytes(overlapping),
        "zip_empty": zip_of({}),
        "tar_of_others": other_tar.getvalue(),
        "tar_of_links": bomb_tar.getvalue(),
    }


def deep() -> dict[str, bytes]:
    """Deeply nested, shared or cyclic content: it may be read, and must not make anything recurse or explode."""
    module = name("torch.nn", "Sequential") + put(()) + b"\x81"
    config = name("omegaconf.dictconfig", "DictConfig") + put(()) + b"\x81"
    children = b"".join(
        module
        + b"}("
        + put("_modules")
        + b"}("
        + put("a", b"j" + struct.pack("<I", i), "b", b"j" + struct.pack("<I", i))
        + b"uub"
        + b"r"
        + struct.pack("<I", i + 1)
        for i in range(1, 60)
    )
    shared = b"".join(
        b"]" + b"(j" + struct.pack("<I", i) + b"j" + struct.pack("<I", i) + b"er" + struct.pack("<I", i + 1)
        for i in range(1, 60)
    )
    bodies = {
        "lists": b"]" * 100_000 + b"a" * 99_999,
        "tuples": b")" + b"\x85" * 100_000,
        "records": b")" + b"".join([b"0", name("a", "b"), b"q\x010)"]) + b"\x85" + b"h\x01" + put(()) + b"R",
        "calls_of_calls": name("a", "b") + b")R" * 20_000,
        "list_in_itself": b"]q\x00h\x00a",
        "dict_in_itself": b"}q\x00" + text("a") + b"h\x00s",
        "module_in_itself": module + b"q\x00}(" + put("_modules") + b"}(" + put("a", b"h\x00") + b"uub",
        "module_of_shared_modules": module + b"}(" + put("_modules", b"}") + b"ubr\x01\x00\x00\x000" + children,
        "config_in_itself": config + b"q\x00}(" + put("_content") + b"}(" + put("a", b"h\x00") + b"uub",
        "config_of_shared_lists": b"]r\x01\x00\x00\x000" + shared,
        "parents_in_a_circle": config + b"q\x00}(" + put("_parent", b"h\x00", "_content", "${a.b}") + b"ub",
    }
    # A list around each, so that what is no dict of weights is read as well.
    return {f"deep_{what}": bare(b"(" + body + b"l") for what, body in bodies.items()}


def other_kinds() -> dict[str, bytes]:
    """Files that are no checkpoints at all."""
    return {
        "empty": b"",
        "one_byte": b"\x80",
        "png": b"\x89PNG\r\n\x1a\n" + bytes(100),
        "jpeg": b"\xff\xd8\xff\xe0" + bytes(100),
        "gif": b"GIF89a" + bytes(100),
        "gzip": gzip.compress(whole(b"}")),
        "bzip2": b"BZh91AY" + bytes(50),
        "xz": b"\xfd7zXZ\x00" + bytes(50),
        "seven_zip": b"7z\xbc\xaf\x27\x1c" + bytes(50),
        "text": b"These are not the weights that you are looking for.\n" * 10,
        "json": b'{"model": [1, 2, 3]}',
        "yaml": b"model:\n  - 1\n",
        "web_page": b"<!DOCTYPE html>\n<html><body>Quota exceeded</body></html>",
        "web_page_in_capitals": b"\n\n  <HTML><BODY>404</BODY></HTML>",
        "git_lfs_pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n",
        "npy": b"\x93NUMPY\x01\x00" + bytes(100),
        "npz": zip_of({"arr_0.npy": b"\x93NUMPY"}),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "pdf": b"%PDF-1.7" + bytes(100),
        "elf": b"\x7fELF" + bytes(100),
        "zeros": bytes(4096),
        "noise": random.Random(1).randbytes(4096),
        "safetensors_header": struct.pack("<Q", 50) + b'{"w":{"dtype":"F32","shape":[1099511627776],"data_o',
        "safetensors_huge": struct.pack("<Q", 2**60) + b'{"w":{}}',
        "pickled_number": whole(number(5)),
        "pickled_text": whole(text("hello")),
        "two_pickles": whole(b"}") + whole(b"}"),
    }


# -- damage -----------------------------------------------------------------------------------------------------------


def sound() -> dict[str, bytes]:
    """Good files of each container, made by torch and safetensors themselves."""
    import safetensors.torch
    import torch

    torch.manual_seed(0)
    state = OrderedDict(a=torch.randn(3, 5), b=torch.arange(7), c=torch.randn(2).half())
    files = {}
    for kind, options in (("zip", {}), ("legacy", {"_use_new_zipfile_serialization": False})):
        buffer = io.BytesIO()
        torch.save({"model": state, "step": 3}, buffer, **options)
        files[kind] = buffer.getvalue()
    storage = put(("storage", name("torch", "FloatStorage"), "1", "cpu", 4, None)) + b"Q"
    inner = legacy(storage)[: -len(pickle.dumps([], 2))] + pickle.dumps(["1"], 2) + struct.pack("<q4f", 4, 1, 2, 3, 4)
    outer = call("torch.storage", "_load_from_bytes", _bytes(inner))
    view = call("torch._utils", "_rebuild_tensor_v2", outer, 0, (2, 2), (2, 1), False, b"}")
    files["nvidia"] = nvidia(view)
    files["safetensors"] = safetensors.torch.save(dict(state))
    return files


def damaged() -> dict[str, bytes]:
    """Good files cut short at many places, and with single bits flipped (seeded)."""
    files = {}
    for kind, data in sound().items():
        places = sorted({1, 2, 9, 40, len(data) - 1, len(data) - 9, *(len(data) * i // 12 for i in range(1, 12))})
        files |= {f"cut_{kind}_{place}": data[:place] for place in places}
        draws = random.Random(kind)
        for index in range(25):
            flipped = bytearray(data)
            flipped[draws.randrange(len(data))] ^= 1 << draws.randrange(8)
            files[f"flip_{kind}_{index}"] = bytes(flipped)
        files[f"tail_{kind}"] = data + b"\x00" * 64
    data = sound()["zip"]
    for member in zipfile.ZipFile(io.BytesIO(data)).infolist():
        if "/data" in member.filename:
            # A member's content follows its local header: 30 bytes, the name and the padding.
            lengths = struct.unpack("<HH", data[member.header_offset + 26 : member.header_offset + 30])
            begin = member.header_offset + 30 + sum(lengths)
            for index in (0, member.file_size // 2, member.file_size - 1):
                flipped = bytearray(data)
                flipped[begin + index] ^= 4
                files[f"content_{member.filename.replace('/', '_')}_{index}"] = bytes(flipped)
    return files


def write_corpus(folder: Path, probe: str) -> dict[str, str]:
    """Write every file; returns its group by its name."""
    groups: dict[str, dict[str, bytes]] = {
        "armed": {
            f"{container}_{what}": wrap(body)
            for container, wrap in CONTAINERS.items()
            for what, body in armed(probe).items()
        },
        "exhausting": exhausting(),
        "archive": odd_archives(),
        "deep": deep(),
        "kind": other_kinds(),
        "damaged": damaged(),
    }
    listed = {}
    for group, files in groups.items():
        for name_, content in files.items():
            (folder / name_).write_bytes(content)
            listed[name_] = group
    (folder / "folder").mkdir()
    return listed | {"folder": "kind", "absent": "kind"}


# -- reading a corpus -------------------------------------------------------------------------------------------------


def read_corpus(folder: Path) -> dict[str, dict]:
    """What came of each file, read under a limit of ``MEMORY`` more bytes than the empty program has."""
    import numpy as np
    import torch

    from portraitzoo.errors import CheckpointError
    from portraitzoo.hub.checkpoints import read_checkpoint
    from portraitzoo.hub.modules import resolve_config, tensors_of_module
    from portraitzoo.hub.pickle_calls import NumpyType
    from portraitzoo.hub.records import Global, Record
    from portraitzoo.hub.storages import Storage

    inert = (dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, complex, bool, type(None))
    inert += (torch.Tensor, torch.dtype, np.ndarray, Global, Record, NumpyType, Storage)

    def active(value: object) -> str | None:
        pending, seen = [value], set()
        while pending:
            part = pending.pop()
            if id(part) in seen:
                continue
            seen.add(id(part))
            if not isinstance(part, inert):
                return type(part).__name__
            if isinstance(part, Record):
                pending += [part.args, part.kwargs, part.state, part.items, part.elements]
                if len(repr(part)) > 300:
                    return "long representation"
                for use in (tensors_of_module, resolve_config):
                    try:
                        use(part)
                    except CheckpointError:
                        continue
            elif isinstance(part, dict):
                pending += [*part.keys(), *part.values()]
            elif isinstance(part, list | tuple | set | frozenset):
                pending += part
        return None

    torch.set_num_threads(1)
    read_checkpoint(_warm(folder))
    for codec in ("raw-unicode-escape", "unicode-escape"):
        codecs.lookup(codec)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    before, modules = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, set(sys.modules)
    results = {}
    for path in [*sorted(folder.iterdir()), folder / "absent"]:
        begin = time.perf_counter()
        try:
            value = read_checkpoint(path)
            outcome = {"outcome": "data", "active": active(value)}
        except CheckpointError as error:
            cause = type(error.__cause__).__name__
            outcome = {"outcome": "refused", "message": str(error), "cause": cause}
        except BaseException as error:
            outcome = {"outcome": "escaped", "message": repr(error)}
        results[path.name] = outcome | {"seconds": time.perf_counter() - begin}
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    results["."] = {"kilobytes": after - before, "modules": sorted(set(sys.modules) - modules)}
    return results


def _warm(folder: Path) -> Path:
    path = folder.parent / "warm.pt"
    path.write_bytes(zipped(b"}(" + text("w") + tensor((4,), (1,)) + b"u"))
    return path


if __name__ == "__main__":
    print(json.dumps(read_corpus(Path(sys.argv[1]))))
