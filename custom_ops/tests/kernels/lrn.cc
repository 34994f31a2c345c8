#include "../kernel_cases.h"
#include "../../src/ops/lrn.h"

namespace onnx_lowrank {

void kernel_cases::lrn() {
  for_edges([](const Edge& e) {
    const float beta = e.stride == 1 ? 0.75f : e.stride == 2 ? 0.5f : 0.3f;
    compare("lrn", Lrn{1 + 2 * (e.rank % 4), 0.1f, beta, 1.0f}, {2, 4, {1, e.height, e.width}},
            2 * 4 * e.height * e.width);
  });
}

}  // namespace onnx_lowrank
