"""Residues in and out of SEAL: the only module that imports TenSEAL and zstandard.

The objects of `tenseal.sealapi` give no buffers: they save to a path and load from one. Here that
path is ``/proc/self/fd/N`` of a memory file that exists for one operation, so nothing reaches a
disk and nothing outlives the call. What SEAL saves is compressed with zstd; what it loads need not
be. Every layout assumed here is compared with what SEAL writes before it is used.

A memory file is ordinary memory: the kernel may swap it out, as it may a process's own pages.

Source: Microsoft SEAL 4, `serialization.h` (header), `ciphertext.cpp` and `plaintext.cpp` (bodies).
"""

from __future__ import annotations

import os
import struct
from types import ModuleType, TracebackType
from typing import Any, Final, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from secagg.errors import ConfigError

__all__ = ["ERROR_BOUND", "Channel", "Context", "Frame", "Residues", "load_libraries"]

Residues: TypeAlias = NDArray[np.uint64]
"""Integers modulo the ring's prime, in [0, q)."""

ERROR_BOUND: Final = 21
"""Most that |e| is, always: SEAL subtracts the weights of two words of 21 random bits
(`sample_poly_cbd` in SEAL's util/rlwe.cpp), a centred binomial of variance 10.5. A SEAL built with
`SEAL_USE_GAUSSIAN_NOISE` clips at 6 × 3.2 = 19.2 and keeps the bound too."""

_BATCH: Final = 15  # polynomials to a transform: a ciphertext holds 16, and one keeps it opaque
_HINT: Final = (
    "pip install tenseal==0.3.18 zstandard (any of 0.3.15 to 0.3.18), or use the scheme masking "
    "(--scheme, run.scheme, policy.schemes)"
)
_NAMES: Final = (
    "Ciphertext",
    "CoeffModulus",
    "Decryptor",
    "EncryptionParameters",
    "Encryptor",
    "Evaluator",
    "KeyGenerator",
    "Plaintext",
    "SCHEME_TYPE",
    "SEALContext",
    "SEC_LEVEL_TYPE",
    "SecretKey",
)
_MAGIC: Final = b"\x5e\xa1\x10"  # and the header's own size
_HEADER_SIZE: Final = 16
_UNCOMPRESSED: Final = 0
_ZSTD: Final = 2
_NO_SCALE: Final = 1.0
_LONGEST_PREFIX: Final = 128  # a ciphertext's is 97 bytes, a plaintext's 72


def load_libraries() -> tuple[ModuleType, ModuleType]:
    """Return `tenseal.sealapi` and `zstandard`.

    Raises:
        ConfigError: one of them is missing or lacks what is used here, or the system has no memory
            files.
    """
    if not hasattr(os, "memfd_create"):
        raise ConfigError(
            "this system has no memory files (memfd_create), and SEAL reads and writes only files",
            hint="run the scheme ckks on Linux, or choose another scheme",
        )
    try:
        import tenseal.sealapi as api  # type: ignore[import-untyped]
        import zstandard
    except ImportError as error:
        raise ConfigError(f"the scheme ckks lacks a package: {error}", hint=_HINT) from error
    absent = [name for name in _NAMES if not hasattr(api, name)]
    if absent:
        raise ConfigError(f"TenSEAL's sealapi has no {', '.join(absent)}", hint=_HINT)
    return api, zstandard


class Frame:
    """One SEAL object as bytes to load: written once, its residues replaced as often as needed.

    Attributes:
        residues: Shape (count, degree), uint64: a view into `data`.
        data: Header, body and residues.
    """

    def __init__(self, version: bytes, prefix: bytes, shape: tuple[int, int]) -> None:
        size = _HEADER_SIZE + len(prefix) + 8 * shape[0] * shape[1]
        head = _header(version, size) + prefix
        self.data = bytearray(size)
        self.data[: len(head)] = head
        self.residues: Residues = np.frombuffer(self.data, "<u8", offset=len(head)).reshape(shape)


def _header(version: bytes, size: int) -> bytes:
    """Return the header of an uncompressed object of `size` bytes, this header included."""
    return _MAGIC + version + bytes([_UNCOMPRESSED, 0, 0]) + struct.pack("<Q", size)


def _array_prefix(version: bytes, length: int) -> bytes:
    """Return what stands before the residues of SEAL's DynArray."""
    return _header(version, _HEADER_SIZE + 8 + 8 * length) + struct.pack("<Q", length)


def _ciphertext_prefix(context: Context, size: int, *, ntt: bool) -> bytes:
    """Return what stands before the residues of a ciphertext of `size` polynomials."""
    fields = struct.pack("<4Q?QQQdQ", *context.level, ntt, size, context.degree, 1, _NO_SCALE, 1)
    return fields + _array_prefix(context.version, size * context.degree)


def _plaintext_prefix(context: Context) -> bytes:
    """Return what stands before the residues of a plaintext or secret key in NTT form."""
    fields = struct.pack("<4QQd", *context.level, context.degree, _NO_SCALE)
    return fields + _array_prefix(context.version, context.degree)


class Context:
    """SEAL set up for one ring with one prime.

    Attributes:
        degree: N.
        modulus: The prime q.
        handle: The SEALContext.
        evaluator: SEAL's Evaluator for it.
        level: `parms_id`, four words that name the parameters.
        version: Two bytes, SEAL's version in every header.

    Raises:
        ConfigError: SEAL refuses the parameters or calls them weaker than 128 bits, or this
            TenSEAL is not one whose byte layout is known.
    """

    def __init__(self, degree: int, modulus_bits: int) -> None:
        self.api, self.zstandard = load_libraries()
        self.degree = degree
        try:
            self.handle, self.modulus = self._set_up(modulus_bits)
        except (RuntimeError, ValueError, TypeError) as error:  # all that the binding raises
            raise ConfigError(
                f"SEAL has no ring of degree {degree} with a prime of {modulus_bits} bits: {error}",
                hint="use a degree of 2048 and up to 54 bits, or 4096 and up to 60",
            ) from error
        self.evaluator = self.api.Evaluator(self.handle)
        self.level: tuple[int, ...] = tuple(self.handle.first_parms_id())
        self.version = b""
        try:
            self._compare_layouts()
        except (RuntimeError, ValueError, OSError) as error:
            raise ConfigError(f"SEAL does not read what it wrote: {error}", hint=_HINT) from error

    def _set_up(self, modulus_bits: int) -> tuple[Any, int]:
        """Return the SEALContext and its prime."""
        parameters = self.api.EncryptionParameters(self.api.SCHEME_TYPE.CKKS)
        parameters.set_poly_modulus_degree(self.degree)
        primes = self.api.CoeffModulus.Create(self.degree, [modulus_bits])
        parameters.set_coeff_modulus(primes)
        handle = self.api.SEALContext(parameters, True, self.api.SEC_LEVEL_TYPE.TC128)
        if not handle.parameters_set():
            raise ValueError(handle.parameters_error_message())
        return handle, int(primes[0].value())

    def _compare_layouts(self) -> None:
        """Compare what SEAL writes with what is built here, then what it reads and computes.

        Raises:
            ConfigError: they differ.
        """
        key = self.api.KeyGenerator(self.handle).secret_key()
        zero, plaintext = self.api.Ciphertext(), self.api.Plaintext()
        self.api.Encryptor(self.handle, key).encrypt_zero_symmetric(zero)
        self.api.Decryptor(self.handle, key).decrypt(zero, plaintext)
        with Channel(self) as channel:
            saved = channel.save(key)
            self.version = saved[3:5]
            if channel.body(saved, 1)[: -8 * self.degree] != _plaintext_prefix(self):
                raise ConfigError("SEAL lays out its keys in an unknown way", hint=_HINT)
            saved = channel.save(zero)
            if channel.body(saved, 2)[: -16 * self.degree] != _ciphertext_prefix(self, 2, ntt=True):
                raise ConfigError("SEAL lays out its ciphertexts in an unknown way", hint=_HINT)
            errors = self.transform(channel.read(plaintext, 1), forward=False)
            if np.minimum(errors, np.uint64(self.modulus) - errors).max() > ERROR_BOUND:
                raise ConfigError("SEAL's errors are larger than its sampler's", hint=_HINT)
            frame, one = self.key_frame(), self.ciphertext_frame(2, ntt=True)
            frame.residues[:], one.residues[1] = channel.read(key, 1), 1
            loaded = channel.load(self.api.SecretKey(), frame)
            product = channel.load(self.api.Ciphertext(), one)
            self.api.Decryptor(self.handle, loaded).decrypt(product, plaintext)  # 0 + 1·s
            if not np.array_equal(channel.read(plaintext, 1), frame.residues):
                raise ConfigError("SEAL does not give back the residues it was given", hint=_HINT)

    def ciphertext_frame(self, size: int, *, ntt: bool) -> Frame:
        """Return a frame for a ciphertext of `size` polynomials, all zero."""
        prefix = _ciphertext_prefix(self, size, ntt=ntt)
        return Frame(self.version, prefix, (size, self.degree))

    def key_frame(self) -> Frame:
        """Return a frame for a secret key (in NTT form, as SEAL keeps it), all zero."""
        return Frame(self.version, _plaintext_prefix(self), (1, self.degree))

    def transform(self, polynomials: Residues, *, forward: bool) -> Residues:
        """Return the number-theoretic transform of `polynomials`, or its inverse.

        Args:
            polynomials: Shape (count, degree), residues below q.
            forward: From coefficients to NTT form; otherwise back.

        Returns:
            Shape (count, degree).
        """
        apply = self.evaluator.transform_to_ntt_inplace
        if not forward:
            apply = self.evaluator.transform_from_ntt_inplace
        result = np.empty_like(polynomials)
        with Channel(self) as channel:
            for start in range(0, len(polynomials), _BATCH):
                part = polynomials[start : start + _BATCH]
                frame = self.ciphertext_frame(len(part) + 1, ntt=not forward)
                frame.residues[:-1] = part
                frame.residues[-1] = 1  # SEAL refuses a ciphertext that shows its plaintext
                batch = channel.load(self.api.Ciphertext(), frame)
                apply(batch)
                result[start : start + _BATCH] = channel.read(batch, len(part) + 1)[:-1]
        return result


class Channel:
    """A memory file through which objects of one context pass; closed, and gone, on exit.

    Each operation opens its own, so a context may be used after a fork and by several threads.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._zstd = context.zstandard.ZstdDecompressor()
        self._fd = os.memfd_create("secagg")
        self._path = f"/proc/self/fd/{self._fd}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._fd)

    def save(self, thing: Any) -> bytes:
        """Return what SEAL saves of `thing`: header and body."""
        thing.save(self._path)  # truncates
        return os.pread(self._fd, os.fstat(self._fd).st_size, 0)

    def body(self, saved: bytes, size: int) -> bytes:
        """Return the body, uncompressed, of an object of `size` polynomials.

        Raises:
            ConfigError: it has no header of SEAL 4, the compression is neither none nor zstd, or
                the body is larger than such an object's.
        """
        mode = saved[5] if saved[:3] == _MAGIC else None
        if mode == _UNCOMPRESSED:
            return saved[_HEADER_SIZE:]
        if mode != _ZSTD:
            raise ConfigError("SEAL writes a header or a compression unknown here", hint=_HINT)
        most = 8 * size * self._context.degree + _LONGEST_PREFIX
        try:
            plain: bytes = self._zstd.decompress(saved[_HEADER_SIZE:], max_output_size=most)
        except self._context.zstandard.ZstdError as error:
            raise ConfigError(
                f"what SEAL saved does not decompress: {error}", hint=_HINT
            ) from error
        return plain

    def read(self, thing: Any, size: int) -> Residues:
        """Return the residues of a SEAL object of `size` polynomials, shape (size, degree)."""
        count = size * self._context.degree
        body = self.body(self.save(thing), size)
        if len(body) < 8 * count:
            raise ConfigError("SEAL saved fewer residues than the object has", hint=_HINT)
        return np.frombuffer(body, "<u8", count, len(body) - 8 * count).reshape(size, -1)

    def load(self, thing: Any, frame: Frame) -> Any:
        """Fill `thing` from `frame` and return it."""
        os.pwrite(self._fd, frame.data, 0)
        if os.fstat(self._fd).st_size != len(frame.data):
            os.ftruncate(self._fd, len(frame.data))
        thing.load(self._context.handle, self._path)
        return thing
