// Stages of the scalar references: one loop nest per stage, any number of axes up to three, no
// blocking.
#pragma once
#include "kernels.h"

namespace onnx_lowrank {

inline int64_t volume(const std::array<int64_t, 3>& s) { return s[0] * s[1] * s[2]; }

inline std::array<int64_t, 3> output_size(const Window& w, const std::array<int64_t, 3>& in) {
  return {w.output(0, in[0]), w.output(1, in[1]), w.output(2, in[2])};
}

// y[f] = sum over `per_group` channels and taps; w[rows][per_group][taps], `rows / groups` rows per
// group.
void conv(const Window& win, const std::array<int64_t, 3>& in, const std::array<int64_t, 3>& out,
          int64_t groups, int64_t per_group, int64_t rows, const float* x, const float* w,
          const float* bias, float* y);

// y[f] = act(sorted[order[f]]), planes of `plane` floats.
void finish(const std::vector<float>& sorted, const std::vector<int64_t>& order,
            const Activation& act, int64_t plane, float* y);

}  // namespace onnx_lowrank
