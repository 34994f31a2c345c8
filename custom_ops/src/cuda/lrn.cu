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
      start(lrn_kernel<T>, l, params, x, y, static_cast<cudaStream_t>(stream));
    });
  }

 private:
  Lrn d_;
  Device facts_;
};

}  // namespace

Device current_device() {
  const int device = current();
  Device d{};
  check(cudaDeviceGetAttribute(&d.multiprocessors, cudaDevAttrMultiProcessorCount, device),
        "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&d.shared_block, cudaDevAttrMaxSharedMemoryPerBlockOptin, device),
        "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&d.shared_multiprocessor,
                               cudaDevAttrMaxSharedMemoryPerMultiprocessor, device),
        "cudaDeviceGetAttribute");
  return d;
}

std::unique_ptr<Layer> make_layer(const Lrn& d) { return std::make_unique<LrnLayer>(d); }

std::unique_ptr<Layer> make_layer(const LowRank& d) {
  return d.depthwise ? make_cp_layer(d) : make_tucker2_layer(d);
}

}  // namespace onnx_lowrank::cuda
