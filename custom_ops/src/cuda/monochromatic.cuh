// MonochromaticConv. One block: one image, one output depth, one colour, Q of its filters, P *
// threads output pixels.
//
// The pixels of a strip of columns are numbered row by row and blocks take runs of them, so that no
// part of a tile hangs over the edge. The block computes its colour's plane, Z = sum of colours[c]
// X over the rows it needs, into shared memory (the colour transform is never in device memory),
// then each thread holds P pixels x Q filters in registers: for each tap P loads of Z and Q / 4
// broadcast loads of weights feed P x Q multiply-adds. Columns are split by stride phase, so that
// neighbouring threads read neighbouring words whatever the stride.
#pragma once
#include "device.h"

namespace onnx_lowrank::cuda {

struct MonoParams {
  DeviceWindow window;
  DeviceActivation activation;
  int channels, filters, colours, per_colour;
  int chunks;                // of Q filters in a colour
  int strips, strip;         // columns are cut into `strips` of `strip` output columns
  int runs;                  // blocks for one strip
  int columns, phase_pitch;  // of Z: input columns of a strip; words from one phase to the next
  int row_pitch;             // words from one row of Z to the next
  int plane_words;           // of Z; the weights follow
  Divisor strip_divisor, stride_divisor;
  const float* colour;  // [colours][channels]
  const float* filter;  // [colours][chunks][taps][Q], zero beyond per_colour
  const float* bias;    // [colours][chunks][Q]
  const int* target;    // [filters]: where a sorted filter goes
};

constexpr int kMonoThreads = 128;

template <class T, int P, int Q, int Threads>
OLR_KERNEL OLR_BOUNDS(Threads, 512 / Threads) mono_kernel(const MonoParams p, const T* x, T* y) {
  OLR_SHARED(shared);
  const DeviceWindow& w = p.window;
  // Blocks of one place differ in colour first: they read the same part of X.
  int index = blockIdx.x;
  const int chunk = remainder(index, p.chunks);
  const int colour = remainder(index, p.colours);
  const int run = remainder(index, p.runs);
  const int strip = remainder(index, p.strips);
  const int depth = remainder(index, w.out[0]);
  const int64_t image = index;

  const int left = strip * p.strip;
  const int width = min(p.strip, w.out[2] - left);
  const int pixels = width * w.out[1];
  const int first = run * P * Threads;
  if (first >= pixels) return;  // the last strip is narrower than the others
  const int last = min(first + P * Threads, pixels) - 1;
  const int top = first / width, bottom = last / width;
  const int rows = (bottom - top) * w.stride[1] + (w.kernel[1] - 1) * w.dilation[1] + 1;
  const int row0 = top * w.stride[1] - w.begin[1], column0 = left * w.stride[2] - w.begin[2];
  const int taps = w.kernel[1] * w.kernel[2];

  // Where each pixel of this thread begins in Z: pixel i of a thread is Threads after the one
  // before.
  int base[P];
  OLR_UNROLL
  for (int i = 0; i < P; ++i) {
    const int pixel = min(first + i * Threads + static_cast<int>(threadIdx.x), last);
    const int row = pixel / width;
    base[i] = (row - top) * w.stride[1] * p.row_pitch + pixel - row * width;
  }

  const int part = colour * p.chunks + chunk;
  float sum[P][Q];
  OLR_UNROLL
  for (int q = 0; q < Q; ++q) {
    const float b = __ldg(p.bias + part * Q + q);
    OLR_UNROLL
    for (int i = 0; i < P; ++i) sum[i][q] = b;
  }

  float* const weights = shared + p.plane_words;
  const int64_t plane = static_cast<int64_t>(w.in[1]) * w.in[2], volume = plane * w.in[0];
  const float* const mix = p.colour + static_cast<int64_t>(colour) * p.channels;
  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  for (int k0 = 0; k0 < w.kernel[0]; ++k0) {
    const int slice = depth * w.stride[0] + k0 * w.dilation[0] - w.begin[0];
    if (slice < 0 || slice >= w.in[0]) continue;  // the same for the whole block
    if (k0) __syncthreads();
    const T* const from = x + image * p.channels * volume + slice * plane;
    for (int r = warp; r < rows; r += Threads / kWarp) {
      const int row = row0 + r;
      const bool inside = row >= 0 && row < w.in[1];
      for (int c = lane; c < p.columns; c += kWarp) {
        const int column = column0 + c;
        float z = 0;
        if (inside && column >= 0 && column < w.in[2]) {
          const T* source = from + static_cast<int64_t>(row) * w.in[2] + column;
          for (int i = 0; i < p.channels; ++i, source += volume) z += __ldg(mix + i) * load(source);
        }
        const int at = p.stride_divisor.quotient(c);
        shared[r * p.row_pitch + (c - at * w.stride[2]) * p.phase_pitch + at] = z;
      }
    }
    const float* const filter =
        p.filter + (static_cast<int64_t>(part) * w.kernel[0] + k0) * taps * Q;
    for (int i = threadIdx.x; i < taps * Q; i += Threads) weights[i] = __ldg(filter + i);
    __syncthreads();

    const float* tap = weights;
    for (int k1 = 0; k1 < w.kernel[1]; ++k1) {
      const float* const line = shared + k1 * w.dilation[1] * p.row_pitch;
      OLR_UNROLL_BY_2
      for (int k2 = 0; k2 < w.kernel[2]; ++k2, tap += Q) {
        const int c = k2 * w.dilation[2], at = p.stride_divisor.quotient(c);
        const float* const z = line + (c - at * w.stride[2]) * p.phase_pitch + at;
        float value[P], weight[Q];
        OLR_UNROLL
        for (int i = 0; i < P; ++i) value[i] = z[base[i]];
        OLR_UNROLL
        for (int q = 0; q < Q; q += 4) {
          const float4 four = *reinterpret_cast<const float4*>(tap + q);
          weight[q] = four.x, weight[q + 1] = four.y, weight[q + 2] = four.z,
          weight[q + 3] = four.w;
        }
        OLR_UNROLL
        for (int i = 0; i < P; ++i) OLR_UNROLL
        for (int q = 0; q < Q; ++q) sum[i][q] += value[i] * weight[q];
      }
    }
  }

  const int64_t out_plane = static_cast<int64_t>(w.out[1]) * w.out[2],
                out_volume = out_plane * w.out[0];
  T* const to = y + image * p.filters * out_volume + depth * out_plane;
  const int held = min(Q, p.per_colour - chunk * Q), sorted = colour * p.per_colour + chunk * Q;
  int64_t place[P];
  OLR_UNROLL
  for (int i = 0; i < P; ++i) {
    const int pixel = first + i * Threads + static_cast<int>(threadIdx.x);
    const int row = pixel / width;
    place[i] =
        pixel > last ? -1 : static_cast<int64_t>(row) * w.out[2] + left + pixel - row * width;
  }
  OLR_UNROLL
  for (int q = 0; q < Q; ++q) {
    if (q >= held) continue;
    T* const filter = to + __ldg(p.target + sorted + q) * out_volume;
    OLR_UNROLL
    for (int i = 0; i < P; ++i)
      if (place[i] >= 0) store(filter + place[i], p.activation(sum[i][q]));
  }
}

}  // namespace onnx_lowrank::cuda
