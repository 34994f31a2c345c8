// CPConv and Tucker2Conv in one kernel. One block: one image, one output depth, one tile of output
// pixels, one output group.
//
//   Z = A X on the tile and its halo, some channels at a time, into shared memory
//   T += core * Z, depthwise or full, into shared memory, where all channels of T for the tile stay
//   Y = act(bias + B T), scattered by the output order
//
// so neither Z nor T is ever in device memory. The price is that neighbouring tiles compute the
// halo of Z twice. All three products have one form: a warp holds P * 32 pixels x Q rows in
// registers, weights are packed [rows / Q][terms][Q] and read by broadcast, positions with
// neighbouring lanes on neighbouring words. Permutations are indices: none moves data.
#pragma once
#include "device.h"

namespace onnx_lowrank::cuda {

struct LowRankParams {
  DeviceWindow window;
  DeviceActivation activation;
  int channels, filters, input_groups, output_groups, rank1, rank2;
  int units1, units2,
      units3;  // of Q rows: in rank1, rank2 (Tucker-2 only) and the filters of an output group
  int tile[2], tiles[2];  // rows and columns of output
  int halo[2];            // rows and columns of Z
  int step[2];    // input pixels from one Z to the next: the stride where the kernel has one tap,
                  // else 1
  int stride[2];  // Z pixels from one output to the next
  int splits;     // blocks that share the filters of an output group
  int chunk_groups,
      chunk_units;  // Z in shared memory: input groups, and units of Q channels in each
  int row_pitch, phase_pitch, z_pitch, t_pitch, z_words;
  Divisor column_divisor, stride_divisor, tile_divisor;
  const float* a;     // [H][G][units1][C/G][Q]
  const float* core;  // depthwise: [H][G][rank1][all taps]; else
                      // [H][G][units2][kernel[0]][rank1][kernel[1] * kernel[2]][Q]
  const float* b;     // [H][units3][G * rank2][Q]
  const float* bias;  // [H][units3][Q]
  const int* input;   // [channels]: which channel of X
  const int* target;  // [filters]: where a sorted filter goes
};

constexpr int kLowRankThreads = 256;

template <int P, int Q>
struct Sums {
  float v[P][Q];
  OLR_DEVICE void add(const float (&value)[P], const float* weights) {
    float weight[Q];
    OLR_UNROLL
    for (int q = 0; q < Q; q += 4) {
      const float4 four = __ldg(reinterpret_cast<const float4*>(weights + q));
      weight[q] = four.x, weight[q + 1] = four.y, weight[q + 2] = four.z, weight[q + 3] = four.w;
    }
    OLR_UNROLL
    for (int i = 0; i < P; ++i) OLR_UNROLL
    for (int q = 0; q < Q; ++q) v[i][q] += value[i] * weight[q];
  }
};

template <class T, bool Depthwise, int P, int Q>
OLR_KERNEL OLR_BOUNDS(kLowRankThreads, 2) low_rank_kernel(const LowRankParams p, const T* x, T* y) {
  OLR_SHARED(shared);
  constexpr int kWarps = kLowRankThreads / kWarp, kPixels = P * kWarp;
  const DeviceWindow& w = p.window;
  int index = blockIdx.x;
  // Blocks of one place follow one another: they read the same part of X.
  const int split = remainder(index, p.splits);
  const int h = remainder(index, p.output_groups);
  const int left = remainder(index, p.tiles[1]) * p.tile[1];
  const int top = remainder(index, p.tiles[0]) * p.tile[0];
  const int depth = remainder(index, w.out[0]);
  const int64_t image = index;

  const int lane = threadIdx.x % kWarp, warp = threadIdx.x / kWarp;
  const int area = p.tile[0] * p.tile[1], halo = p.halo[0] * p.halo[1];
  const int out_parts = (area + kPixels - 1) / kPixels, in_parts = (halo + kPixels - 1) / kPixels;
  const int taps = w.kernel[1] * w.kernel[2], per_group = p.channels / p.input_groups;
  const int64_t plane = static_cast<int64_t>(w.in[1]) * w.in[2], volume = plane * w.in[0];
  float* const z = shared;
  float* const t = shared + p.z_words;
  for (int i = threadIdx.x; i < p.input_groups * p.rank2 * p.t_pitch; i += kLowRankThreads)
    t[i] = 0;

  // Where the pixels of a lane begin in Z.
  auto bases = [&](int part, int (&base)[P]) {
    OLR_UNROLL
    for (int i = 0; i < P; ++i) {
      const int pixel = min(part * kPixels + i * kWarp + lane, area - 1);
      const int row = p.tile_divisor.quotient(pixel);
      base[i] = row * p.stride[0] * p.row_pitch + pixel - row * p.tile[1];
    }
  };
  auto tap_offset = [&](int k1, int k2) {
    const int c = k2 * w.dilation[2], at = p.stride_divisor.quotient(c);
    return k1 * w.dilation[1] * p.row_pitch + (c - at * p.stride[1]) * p.phase_pitch + at;
  };

  for (int g0 = 0; g0 < p.input_groups; g0 += p.chunk_groups) {
    const int groups = min(p.chunk_groups, p.input_groups - g0);
    for (int m0 = 0; m0 < p.units1; m0 += p.chunk_units) {
      const int units = min(p.chunk_units, p.units1 - m0);
      const int rows = min(units * Q, p.rank1 - m0 * Q);  // of Z that are no padding
      for (int k0 = 0; k0 < w.kernel[0]; ++k0) {
        const int slice = depth * w.stride[0] + k0 * w.dilation[0] - w.begin[0];
        if (slice < 0 || slice >= w.in[0]) continue;  // the same for the whole block
        __syncthreads();                              // T is zero, the last Z is used
        const T* const from = x + image * p.channels * volume + slice * plane;
        for (int u = warp; u < groups * units * in_parts; u += kWarps) {
          int rest = u;
          const int m = remainder(rest, units), g = remainder(rest, groups), part = rest;
          int offset[P], place[P];
          OLR_UNROLL
          for (int i = 0; i < P; ++i) {
            const int pixel = part * kPixels + i * kWarp + lane;
            const int r = p.column_divisor.quotient(pixel), c = pixel - r * p.halo[1];
            const int row = top * w.stride[1] + r * p.step[0] - w.begin[1];
            const int column = left * w.stride[2] + c * p.step[1] - w.begin[2];
            const bool inside = row >= 0 && row < w.in[1] && column >= 0 && column < w.in[2];
            offset[i] = pixel < halo && inside ? row * w.in[2] + column : -1;
            const int at = p.stride_divisor.quotient(c);
            place[i] =
                pixel < halo ? r * p.row_pitch + (c - at * p.stride[1]) * p.phase_pitch + at : -1;
          }
          Sums<P, Q> sum{};
          const float* a =
              p.a + (static_cast<int64_t>(h * p.input_groups + g0 + g) * p.units1 + m0 + m) *
                        per_group * Q;
          const int* input = p.input + (g0 + g) * per_group;
          OLR_UNROLL_BY_2
          for (int c = 0; c < per_group; ++c, a += Q) {
            const T* const channel = from + __ldg(input + c) * volume;
            float value[P];
            OLR_UNROLL
            for (int i = 0; i < P; ++i) value[i] = offset[i] < 0 ? 0.0f : load(channel + offset[i]);
            sum.add(value, a);
          }
          float* const zm = z + (g * units + m) * Q * p.z_pitch;
          OLR_UNROLL
          for (int i = 0; i < P; ++i)
            if (place[i] >= 0) {
              OLR_UNROLL
              for (int q = 0; q < Q; ++q) zm[q * p.z_pitch + place[i]] = sum.v[i][q];
            }
        }
        __syncthreads();

        if (Depthwise) {
          for (int part = 0; part < out_parts; ++part) {
            int base[P];
            bases(part, base);
            for (int k = warp; k < groups * rows; k += kWarps) {
              int rest = k;
              const int row = remainder(rest, rows), g = rest;
              const float* weight =
                  p.core +
                  ((static_cast<int64_t>(h * p.input_groups + g0 + g) * p.rank1 + m0 * Q + row) *
                       w.kernel[0] +
                   k0) *
                      taps;
              const float* const zk = z + (g * units * Q + row) * p.z_pitch;
              float sum[P] = {};
              for (int k1 = 0; k1 < w.kernel[1]; ++k1)
                for (int k2 = 0; k2 < w.kernel[2]; ++k2, ++weight) {
                  const float* const zt = zk + tap_offset(k1, k2);
                  const float wk = __ldg(weight);
                  OLR_UNROLL
                  for (int i = 0; i < P; ++i) sum[i] += wk * zt[base[i]];
                }
              float* const tk =
                  t + ((g0 + g) * p.rank2 + m0 * Q + row) * p.t_pitch + part * kPixels + lane;
              OLR_UNROLL
              for (int i = 0; i < P; ++i) tk[i * kWarp] += sum[i];
            }
          }
        } else {
          for (int u = warp; u < groups * p.units2 * out_parts; u += kWarps) {
            int rest = u;
            const int m = remainder(rest, p.units2), g = remainder(rest, groups), part = rest;
            int base[P];
            bases(part, base);
            float* const tm = t + ((g0 + g) * p.rank2 + m * Q) * p.t_pitch + part * kPixels + lane;
            const int held = min(Q, p.rank2 - m * Q);
            Sums<P, Q> sum;
            OLR_UNROLL
            for (int i = 0; i < P; ++i) OLR_UNROLL
            for (int q = 0; q < Q; ++q)
              sum.v[i][q] = q < held ? tm[q * p.t_pitch + i * kWarp] : 0.0f;
            const float* core =
                p.core +
                (((static_cast<int64_t>(h * p.input_groups + g0 + g) * p.units2 + m) * w.kernel[0] +
                  k0) *
                     p.rank1 +
                 m0 * Q) *
                    taps * Q;
            const float* zk = z + g * units * Q * p.z_pitch;
            for (int k = 0; k < rows; ++k, zk += p.z_pitch)
              for (int k1 = 0; k1 < w.kernel[1]; ++k1) OLR_UNROLL_BY_2
            for (int k2 = 0; k2 < w.kernel[2]; ++k2, core += Q) {
              const float* const zt = zk + tap_offset(k1, k2);
              float value[P];
              OLR_UNROLL
              for (int i = 0; i < P; ++i) value[i] = zt[base[i]];
              sum.add(value, core);
            }
            OLR_UNROLL
            for (int q = 0; q < Q; ++q) {
              if (q >= held) continue;
              OLR_UNROLL
              for (int i = 0; i < P; ++i) tm[q * p.t_pitch + i * kWarp] = sum.v[i][q];
            }
          }
        }
      }
    }
  }
  __syncthreads();

  const int64_t out_plane = static_cast<int64_t>(w.out[1]) * w.out[2],
                out_volume = out_plane * w.out[0];
  T* const to = y + image * p.filters * out_volume + depth * out_plane;
  const int per_output = p.filters / p.output_groups, terms = p.input_groups * p.rank2;
  const int from_unit = static_cast<int64_t>(split) * p.units3 / p.splits;
  const int units = static_cast<int64_t>(split + 1) * p.units3 / p.splits - from_unit;
  for (int u = warp; u < units * out_parts; u += kWarps) {
    int part = u;
    const int m = from_unit + remainder(part, units);
    const int64_t unit = static_cast<int64_t>(h) * p.units3 + m;
    Sums<P, Q> sum;
    OLR_UNROLL
    for (int q = 0; q < Q; ++q) {
      const float bias = __ldg(p.bias + unit * Q + q);
      OLR_UNROLL
      for (int i = 0; i < P; ++i) sum.v[i][q] = bias;
    }
    const float* b = p.b + unit * terms * Q;
    const float* tk = t + part * kPixels + lane;
    OLR_UNROLL_BY_2
    for (int k = 0; k < terms; ++k, b += Q, tk += p.t_pitch) {
      float value[P];
      OLR_UNROLL
      for (int i = 0; i < P; ++i) value[i] = tk[i * kWarp];
      sum.add(value, b);
    }
    int64_t place[P];
    OLR_UNROLL
    for (int i = 0; i < P; ++i) {
      const int pixel = part * kPixels + i * kWarp + lane;
      const int r = p.tile_divisor.quotient(pixel), row = top + r,
                column = left + pixel - r * p.tile[1];
      const bool inside = pixel < area && row < w.out[1] && column < w.out[2];
      place[i] = inside ? static_cast<int64_t>(row) * w.out[2] + column : -1;
    }
    const int held = min(Q, per_output - m * Q);
    OLR_UNROLL
    for (int q = 0; q < Q; ++q) {
      if (q >= held) continue;
      T* const filter = to + __ldg(p.target + h * per_output + m * Q + q) * out_volume;
      OLR_UNROLL
      for (int i = 0; i < P; ++i)
        if (place[i] >= 0) store(filter + place[i], p.activation(sum.v[i][q]));
    }
  }
}

}  // namespace onnx_lowrank::cuda
