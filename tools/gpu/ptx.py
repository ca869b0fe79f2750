"""The CUDA C of crates/cuda/kernels to PTX, by NVRTC from the Python index: no GPU, driver or toolkit is needed.

    pip install -r tools/gpu/requirements.txt
    python3 tools/gpu/ptx.py            # writes crates/cuda/kernels/ptx/*.ptx, which the crate embeds
    python3 tools/gpu/ptx.py --check    # compiles for every architecture, and fails where the files in the repository are not what comes out

`--check` ends with status 3 where NVRTC is not installed.
"""

import ctypes
import pathlib
import re
import sys

KERNELS = pathlib.Path(__file__).parents[2] / "crates/cuda/kernels"
# What is embedded: Turing has no bfloat16 in its matrix unit. The driver compiles the nearest one below for the card.
EMBEDDED = ["compute_75", "compute_80"]
# What must compile to machine code too.
COMPILED = ["sm_75", "sm_80", "sm_90a"]


def nvrtc():
    """The library of the pinned package; none where it is not installed."""
    try:
        import nvidia.cuda_nvrtc as package
    except ImportError:
        return None
    folder = pathlib.Path(package.__path__[0])
    for builtins in folder.glob("lib/libnvrtc-builtins.so*"):
        ctypes.CDLL(str(builtins), mode=ctypes.RTLD_GLOBAL)
    return ctypes.CDLL(str(next(folder.glob("lib/libnvrtc.so*"))))


def compile_for(library, architecture):
    """PTX, or for `sm_…` machine code."""
    source = (KERNELS / "kernels.cu").read_bytes()
    files = sorted(path for path in KERNELS.iterdir() if path.suffix in (".cu", ".cuh") and path.name != "kernels.cu")
    names = (ctypes.c_char_p * len(files))(*(path.name.encode() for path in files))
    texts = (ctypes.c_char_p * len(files))(*(path.read_bytes() for path in files))
    program = ctypes.c_void_p()
    created = library.nvrtcCreateProgram(ctypes.byref(program), source, b"kernels.cu", len(files), texts, names)
    assert created == 0, f"nvrtcCreateProgram: {created}"
    options = [f"--gpu-architecture={architecture}".encode(), b"--std=c++17"]
    status = library.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options))
    size = ctypes.c_size_t()
    library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
    log = ctypes.create_string_buffer(size.value)
    library.nvrtcGetProgramLog(program, log)
    if status != 0 or log.value.strip():
        sys.exit(f"{architecture}: {log.value.decode()}")
    what = "CUBIN" if architecture.startswith("sm_") else "PTX"
    getattr(library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
    code = ctypes.create_string_buffer(size.value)
    getattr(library, f"nvrtcGet{what}")(program, code)
    return code.raw


def ptx(library, architecture):
    """PTX without comments, which name the compiler's build."""
    text = compile_for(library, architecture).rstrip(b"\0").decode()
    text = re.sub(r"^\s*//.*\n", "", text, flags=re.M)
    # Constants of the compiler's own headers, which no kernel reads.
    text = re.sub(r"^\.global .*nv6target.*\n", "", text, flags=re.M)
    text = re.sub(r"[ \t]*// .*$", "", text, flags=re.M)
    return re.sub(r"\n{2,}", "\n", text).lstrip("\n")


def main():
    check = sys.argv[1:] == ["--check"]
    assert check or not sys.argv[1:], __doc__
    library = nvrtc()
    if library is None:
        print("NVRTC is not installed: pip install -r tools/gpu/requirements.txt", file=sys.stderr)
        sys.exit(3)
    stale = []
    for architecture in EMBEDDED:
        path = KERNELS / "ptx" / f"{architecture}.ptx"
        text = ptx(library, architecture)
        if not check:
            path.parent.mkdir(exist_ok=True)
            path.write_text(text)
        elif not path.exists() or path.read_text() != text:
            stale.append(path.name)
        print(f"{architecture}: {len(text)} bytes, {text.count('.visible .entry')} kernels")
    for architecture in COMPILED if check else []:
        print(f"{architecture}: {len(compile_for(library, architecture))} bytes of machine code")
    if stale:
        sys.exit(f"not what the kernels compile to: {', '.join(stale)}; run tools/gpu/ptx.py")


main()
