"""Quantizes float rows to Q4_K and Q6_K blocks, in NumPy, by least squares over a few candidate scales.

Block layouts: K-quants of the GGUF format, 256 elements per block. `gguf.quants.dequantize` reads the result.
"""

from __future__ import annotations

import numpy as np

BLOCK = 256


def q6_k(rows: np.ndarray) -> np.ndarray:
    """Return the bytes (rows, 210 per 256 elements) of Q6_K: 16 signed scales of 8 bits, quants of 6 bits."""
    x = rows.reshape(-1, 16, 16).astype(np.float32)
    scale = _symmetric_scale(x)
    largest = np.take_along_axis(scale, np.argmax(np.abs(scale), 1)[:, None], 1)
    d = _half(largest / -128)
    codes = np.clip(np.rint(_divide(scale, d)), -128, 127)
    q = np.clip(np.rint(_divide(x, (d * codes)[..., None])), -32, 31).astype(np.int16) + 32
    q = q.astype(np.uint8).reshape(-1, 2, 4, 32)
    low = np.concatenate([q[:, :, 0] & 15 | (q[:, :, 2] & 15) << 4, q[:, :, 1] & 15 | (q[:, :, 3] & 15) << 4], -1)
    high = q[:, :, 0] >> 4 | q[:, :, 1] >> 4 << 2 | q[:, :, 2] >> 4 << 4 | q[:, :, 3] >> 4 << 6
    parts = [low.reshape(-1, 128), high.reshape(-1, 64), codes.astype(np.int8).view(np.uint8), _half_bytes(d)]
    return np.concatenate(parts, 1).reshape(len(rows), -1)


def q4_k(rows: np.ndarray) -> np.ndarray:
    """Return the bytes (rows, 144 per 256 elements) of Q4_K: 8 scales and minima of 6 bits, quants of 4 bits."""
    x = rows.reshape(-1, 8, 32).astype(np.float32)
    scale, minimum = _affine_scale(x)
    d, dmin = _half(scale.max(1, keepdims=True) / 63), _half(minimum.max(1, keepdims=True) / 63)
    scales = np.clip(np.rint(_divide(scale, d)), 0, 63).astype(np.uint8)
    minima = np.clip(np.rint(_divide(minimum, dmin)), 0, 63).astype(np.uint8)
    q = np.clip(np.rint(_divide(x + (dmin * minima)[..., None], (d * scales)[..., None])), 0, 15).astype(np.uint8)
    packed = np.concatenate(
        [
            scales[:, :4] | scales[:, 4:] >> 4 << 6,
            minima[:, :4] | minima[:, 4:] >> 4 << 6,
            scales[:, 4:] & 15 | (minima[:, 4:] & 15) << 4,
        ],
        1,
    )
    pairs = q.reshape(-1, 4, 2, 32)
    nibbles = (pairs[:, :, 0] | pairs[:, :, 1] << 4).reshape(-1, 128)
    return np.concatenate([_half_bytes(d), _half_bytes(dmin), packed, nibbles], 1).reshape(len(rows), -1)


def _symmetric_scale(x: np.ndarray) -> np.ndarray:
    """Return, along the last axis, the scale whose multiples -32..31 have the least weighted squared error."""
    peak = np.take_along_axis(x, np.argmax(np.abs(x), -1)[..., None], -1)
    weight = x * x
    best, chosen = np.full(x.shape[:-1], -1.0, np.float32), np.zeros(x.shape[:-1], np.float32)
    for step in range(-9, 10):
        q = np.clip(np.rint(_divide(x * -(32 + 0.1 * step), peak)), -32, 31)
        product, square = np.sum(weight * x * q, -1), np.sum(weight * q * q, -1)
        gain = _divide(product * product, square)
        better = gain > best
        best, chosen = np.where(better, gain, best), np.where(better, _divide(product, square), chosen)
    return chosen


def _affine_scale(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return, along the last axis, the scale s >= 0 and minimum m >= 0 that best fit q s - m with q in 0..15."""
    weight = np.sqrt(np.mean(x * x, -1, keepdims=True)) + np.abs(x)
    low = np.minimum(x.min(-1, keepdims=True), 0)
    reach = x.max(-1, keepdims=True) - low
    scale, minimum = reach[..., 0] / 15, -low[..., 0]
    q = np.clip(np.rint(_divide((x - low) * 15, reach)), 0, 15)
    best = (weight * (scale[..., None] * q - minimum[..., None] - x) ** 2).sum(-1)
    count, sum_x = weight.sum(-1), (weight * x).sum(-1)
    for step in range(21):
        q = np.clip(np.rint(_divide((x - low) * (14 + 0.1 * step), reach)), 0, 15)
        sum_q, sum_qq, sum_qx = (weight * q).sum(-1), (weight * q * q).sum(-1), (weight * q * x).sum(-1)
        determinant = count * sum_qq - sum_q * sum_q
        s = _divide(count * sum_qx - sum_x * sum_q, determinant)
        m = -_divide(sum_qq * sum_x - sum_q * sum_qx, determinant)
        s, m = np.where(m < 0, _divide(sum_qx, sum_qq), s), np.maximum(m, 0)
        error = (weight * (s[..., None] * q - m[..., None] - x) ** 2).sum(-1)
        better = (error < best) & (s >= 0)
        best, scale, minimum = np.where(better, error, best), np.where(better, s, scale), np.where(better, m, minimum)
    return scale, minimum


def _divide(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return a / b, and 0 where b is 0."""
    b = np.broadcast_to(b, np.broadcast_shapes(np.shape(a), np.shape(b)))
    return np.divide(a, b, out=np.zeros(b.shape, np.float32), where=b != 0)


def _half(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float16).astype(np.float32)


def _half_bytes(x: np.ndarray) -> np.ndarray:
    return x.astype("<f2").view(np.uint8).reshape(len(x), 2)
