// Cases of CPConv and Tucker2Conv.
#pragma once
#include "../kernel_cases.h"
#include "../../src/ops/low_rank.h"

namespace onnx_lowrank {

inline LowRank random_layer(bool depthwise, int64_t channels, int64_t filters, int64_t groups,
                            int64_t rank1, int64_t rank2, const Window& w,
                            const Activation& activation = {}) {
  const int64_t blocks = groups * groups, core = rank2 * (depthwise ? 1 : rank1) * w.taps();
  return {depthwise,
          channels,
          filters,
          groups,
          groups,
          rank1,
          rank2,
          w,
          activation,
          values(blocks * rank1 * channels / groups),
          values(blocks * core),
          values(filters * groups * rank2),
          values(filters),
          shuffled(channels),
          shuffled(filters)};
}

// One block of many channels on a tall image: tasks that go down it in several strips and keep the
// rows these share.
inline void strips(const char* what, bool depthwise) {
  for (int64_t width : {96, 112, 113})
    for (int64_t height : {69, 70})
      for (int64_t rank : {7, 9, 16, 17})
        for (int64_t shape = 0; shape < 4; ++shape) {
          const int64_t C = 24, F = 10;
          const Window w = window(shape == 3 ? 5 : 3, 1, shape == 2 ? 2 : 1, shape == 1 ? 0 : 6);
          compare(what, random_layer(depthwise, C, F, 1, rank, rank, w, {0.0f}),
                  {1, C, {1, height, width}}, F * w.output(1, height) * w.output(2, width));
        }
}

}  // namespace onnx_lowrank
