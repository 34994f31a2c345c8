#include "launch.cuh"

namespace onnx_lowrank::cuda {
namespace {

struct Start {
  template <class T>
  static void start(const Launch& l, const LowRankParams& params, const void* x, void* y,
                    Stream stream) {
    low_rank_instance(l, [&](auto p, auto q) {
      cuda::start(low_rank_kernel<T, false, p, q>, l, params, x, y, stream);
    });
  }
};

}  // namespace

std::unique_ptr<Node<Layer>> nodes::tucker2(const Attributes& a) {
  return node<Layer>(LowRankNode(a, false), [](const LowRank& d, bool) -> std::unique_ptr<Layer> {
    return std::make_unique<Convolution<LowRankPlan, LowRankParams, Start>>(d);
  });
}

}  // namespace onnx_lowrank::cuda
