#include "reference.h"

#include <algorithm>

namespace onnx_lowrank {
namespace {

struct Range {
  int64_t from, to;
};

// The taps of an axis that read the image for output `o`: padding costs nothing, however much there
// is.
Range taps_inside(const Window& w, int axis, int64_t o, int64_t size) {
  const int64_t first = o * w.stride[axis] - w.begin[axis], d = w.dilation[axis];
  return {first >= 0 ? 0 : (-first + d - 1) / d,
          first >= size ? 0 : std::min(w.kernel[axis], (size - first + d - 1) / d)};
}

float activate(const Activation& a, float x) {
  x = x < a.min ? a.min : x;
  x = x > a.max ? a.max : x;
  return x < 0 ? a.alpha * x : x;
}

}  // namespace

void conv(const Window& win, const std::array<int64_t, 3>& in, const std::array<int64_t, 3>& out,
          int64_t groups, int64_t per_group, int64_t rows, const float* x, const float* w,
          const float* bias, float* y) {
  const int64_t plane = volume(in), taps = win.taps();
  for (int64_t f = 0; f < rows; ++f) {
    const int64_t g = f / (rows / groups);
    for (int64_t o0 = 0; o0 < out[0]; ++o0) {
      const Range r0 = taps_inside(win, 0, o0, in[0]);
      for (int64_t o1 = 0; o1 < out[1]; ++o1) {
        const Range r1 = taps_inside(win, 1, o1, in[1]);
        for (int64_t o2 = 0; o2 < out[2]; ++o2) {
          const Range r2 = taps_inside(win, 2, o2, in[2]);
          float sum = bias ? bias[f] : 0.0f;
          for (int64_t c = 0; c < per_group; ++c) {
            const float* xc = x + (g * per_group + c) * plane;
            const float* wc = w + (f * per_group + c) * taps;
            for (int64_t k0 = r0.from; k0 < r0.to; ++k0)
              for (int64_t k1 = r1.from; k1 < r1.to; ++k1)
                for (int64_t k2 = r2.from; k2 < r2.to; ++k2) {
                  const int64_t i0 = o0 * win.stride[0] + k0 * win.dilation[0] - win.begin[0];
                  const int64_t i1 = o1 * win.stride[1] + k1 * win.dilation[1] - win.begin[1];
                  const int64_t i2 = o2 * win.stride[2] + k2 * win.dilation[2] - win.begin[2];
                  sum += wc[(k0 * win.kernel[1] + k1) * win.kernel[2] + k2] *
                         xc[(i0 * in[1] + i1) * in[2] + i2];
                }
          }
          *y++ = sum;
        }
      }
    }
  }
}

void finish(const std::vector<float>& sorted, const std::vector<int64_t>& order,
            const Activation& act, int64_t plane, float* y) {
  for (size_t f = 0; f < order.size(); ++f)
    for (int64_t p = 0; p < plane; ++p)
      y[f * plane + p] = activate(act, sorted[order[f] * plane + p]);
}

}  // namespace onnx_lowrank
