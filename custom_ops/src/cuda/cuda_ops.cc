// The ops as onnxruntime's CUDA provider sees them. They are a library of their own: a session on
// the GPU registers these and not the CPU's, so that a node without a kernel here becomes its
// standard ops on the GPU and never a kernel on the CPU in between. Weights are inputs in host
// memory, checked and packed as on the CPU and copied to the device once; X and Y are on the
// device.
#include <cstdlib>

#include "../library.h"
#include "launch.h"

namespace onnx_lowrank {
namespace {

// Tests build these ops for the CPU provider, over kernels that are emulated on the host.
#ifdef ONNX_LOWRANK_EMULATED
constexpr bool kEmulated = true;
#else
constexpr bool kEmulated = false;
#endif

const Entry<cuda::Layer> kEntries[] = {
#define ONNX_LOWRANK_OP(file, name, on_cuda, inputs) {#name, on_cuda, inputs, cuda::nodes::file},
#include "../ops.inc"
#undef ONNX_LOWRANK_OP
};

struct Gpu {
  using K = cuda::Layer;
  static constexpr const char* kProvider =
      kEmulated ? "CPUExecutionProvider" : "CUDAExecutionProvider";
  static constexpr const char* kWhere = " on CUDA";
  static constexpr int kWeightMemory = abi::kHostInput;

  // A tensor whose memory is not where the kernel asked for it must be a status and no crash.
  static void check_memory(const OrtApi* api, const OrtValue* value, bool weight) {
    const std::string what = weight ? "a weight" : "X";
    require(value, what + " is missing");
    const OrtMemoryInfo* info = nullptr;
    check(api, abi::GetTensorMemoryInfo(api)(value, &info));
    int device = abi::kCpu;
    abi::MemoryInfoGetDeviceType(api)(info, &device);
    const std::string is = weight ? "device" : "host", wanted = weight ? "host" : "device";
    require((device == abi::kCpu) == (weight || kEmulated),
            what + " is in " + is + " memory, where the kernel needs it in " + wanted + " memory");
  }

  static void run(cuda::Layer& layer, const OrtApi* api, OrtKernelContext* context,
                  const Shapes& shapes, const Tensor& x, void* y) {
    void* stream = nullptr;
    check(api, abi::KernelContext_GetGPUComputeStream(api)(context, &stream));
    const auto type = x.type == abi::kFloat     ? cuda::Type::kFloat
                      : x.type == abi::kFloat16 ? cuda::Type::kHalf
                                                : cuda::Type::kBFloat16;
    layer.run(shapes.image, type, x.data, y, stream);
  }
};

// The ops of a comma-separated list of names, of "all", or those of the table by default.
// onnxruntime takes a node's body where its op is not registered, and refuses the model where the
// op is registered without the node's type: each op is registered for all types or not at all.
std::vector<const Entry<cuda::Layer>*> entries_of(const std::string& list) {
  std::vector<const Entry<cuda::Layer>*> found;
  std::string known;
  for (const auto& entry : kEntries) {
    known += std::string(entry.name) + ", ";
    if (list.empty() ? entry.on_cuda : list == "all") found.push_back(&entry);
  }
  if (list.empty() || list == "all") return found;
  for (size_t from = 0; from <= list.size();) {
    const size_t to = std::min(list.find(',', from), list.size());
    const std::string item = list.substr(from, to - from);
    from = to + 1;
    const auto entry = std::find_if(std::begin(kEntries), std::end(kEntries),
                                    [&](const auto& each) { return item == each.name; });
    require(entry != std::end(kEntries),
            "ONNX_LOWRANK_CUDA_OPS names '" + item + "'; known are " + known + "or all alone");
    found.push_back(entry);
  }
  return found;
}

// The runtime keeps pointers to the ops for as long as any session lives: each choice is kept for
// the process.
const std::vector<Op<Gpu>>& chosen_ops() {
  const char* asked = std::getenv("ONNX_LOWRANK_CUDA_OPS");
  const auto chosen = for_every_type<Gpu>(entries_of(asked ? asked : ""));
  return *new std::vector<Op<Gpu>>(chosen);
}

}  // namespace
}  // namespace onnx_lowrank

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const abi::OrtApiBase* base) {
  return onnx_lowrank::register_ops<onnx_lowrank::Gpu>(options, base, onnx_lowrank::chosen_ops);
}
