#include "launch.cuh"

namespace onnx_lowrank::cuda {
namespace {

class LrnLayer : public Layer {
 public:
  explicit LrnLayer(const Lrn& d) : d_(d), facts_(current_device()) {}
  void run(const Image& in, Type type, const void* x, void* y, void* stream) override {
    LrnParams params;
    const Launch l = plan_lrn(d_, in, facts_, &params);
    storage_type(type, [&](auto pointer) {
      using T = std::remove_const_t<std::remove_pointer_t<decltype(pointer)>>;
      start(lrn_kernel<T>, l, params, x, y, static_cast<Stream>(stream));
    });
  }

 private:
  Lrn d_;
  Device facts_;
};

}  // namespace

std::unique_ptr<Node<Layer>> nodes::lrn(const Attributes& a) {
  return node<Layer>(LrnNode(a), [](const Lrn& d, bool) -> std::unique_ptr<Layer> {
    return std::make_unique<LrnLayer>(d);
  });
}

}  // namespace onnx_lowrank::cuda
