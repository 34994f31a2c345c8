// LRN over channels. A thread goes down a segment of the channels of one pixel; neighbouring
// threads are neighbouring pixels, so that all accesses are coalesced. Device memory is read about
// once: what a window reads again comes from the first cache level.
#pragma once
#include "device.h"

namespace onnx_lowrank::cuda {

struct LrnParams {
  int64_t plane, pixels;  // of one image; of all images
  int channels, segment, segments, before, after;
  float scale, beta, bias;  // scale: alpha / size
};

template <class T>
OLR_KERNEL OLR_BOUNDS(256, 4) lrn_kernel(const LrnParams p, const T* x, T* y) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * 256 + threadIdx.x;
  const int64_t pixel = index % p.pixels, segment = index / p.pixels;
  if (segment >= p.segments) return;
  const int64_t image = pixel / p.plane;
  const int64_t offset = image * p.channels * p.plane + pixel - image * p.plane;
  const T* const from = x + offset;
  T* const to = y + offset;
  const int first = segment * p.segment, last = min(first + p.segment, p.channels);
  for (int c = first; c < last; ++c) {
    // Summed anew for every channel: a running sum would keep the rounding of large values that
    // have left the window.
    float sum = 0;
    const int end = min(c + p.after, p.channels - 1);
    for (int k = max(c - p.before, 0); k <= end; ++k) {
      const float v = load(from + k * p.plane);
      sum += v * v;
    }
    const float d = p.bias + p.scale * sum;
    // d^-0.75, AlexNet's, is two roots and no power; rsqrtf and sqrtf are exact to an ulp or two.
    float factor;
    if (p.beta == 0.75f) {
      const float r = rsqrtf(d);
      factor = r * sqrtf(r);
    } else if (p.beta == 0.5f) {
      factor = rsqrtf(d);
    } else if (p.beta == 1.0f) {
      factor = 1.0f / d;
    } else {
      factor = powf(d, -p.beta);
    }
    store(to + c * p.plane, load(from + c * p.plane) * factor);
  }
}

}  // namespace onnx_lowrank::cuda
