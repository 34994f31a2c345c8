// The ops as onnxruntime's CUDA provider sees them. They are a library of their own: a session on
// the GPU registers these and not the CPU's, so that a node without a kernel here becomes its
// standard ops on the GPU and never a kernel on the CPU in between. Weights are inputs in host
// memory, checked and packed as on the CPU and copied to the device once; X and Y are on the
// device.
#include <cstdlib>

#include "../abi/values.h"
#include "../describe.h"
#include "launch.h"

namespace onnx_lowrank {
namespace {

// Tests build these ops for the CPU provider, over kernels that are emulated on the host.
#ifdef ONNX_LOWRANK_EMULATED
constexpr bool kEmulated = true;
constexpr const char* kProvider = "CPUExecutionProvider";
#else
constexpr bool kEmulated = false;
constexpr const char* kProvider = "CUDAExecutionProvider";
#endif

struct Op : OrtCustomOp {
  Kind kind;
  const char* name;
  std::vector<int> inputs;
};

// A layer on the device, with what the shape of Y and the checks need of its description.
struct Built {
  std::unique_ptr<cuda::Layer> layer;
  Outline outline;
};

struct State {
  const Op* op;
  const OrtApi* api;
  std::string node;
  Node attributes;
  Built fixed;  // empty unless all weights are constant

  std::string where() const { return std::string(op->name) + " '" + node + "' on CUDA: "; }
  Built build(const std::vector<int64_t>& x, const std::vector<Tensor>& w) const {
    if (op->kind == Kind::kMonochromatic) {
      const auto d = monochromatic(attributes, x, w);
      return {cuda::make_layer(d), {d.window, d.channels, d.filters, x.size()}};
    }
    const auto d = low_rank(op->kind == Kind::kCp, attributes, x, w);
    return {cuda::make_layer(d), {d.window, d.channels, d.filters, x.size()}};
  }
};

// A tensor whose memory is where this kernel asked for it: anything else must be a status and no
// crash.
Tensor tensor_on(bool host, const OrtApi* api, const OrtValue* value, const char* what) {
  require(value, std::string(what) + " is missing");
  const OrtMemoryInfo* info = nullptr;
  check(api, abi::GetTensorMemoryInfo(api)(value, &info));
  int device = abi::kCpu;
  abi::MemoryInfoGetDeviceType(api)(info, &device);
  require((device == abi::kCpu) == (host || kEmulated),
          std::string(what) + " is in " + (host ? "device" : "host") +
              " memory, where the kernel needs it in " + (host ? "host" : "device") + " memory");
  return tensor(api, value);
}

OrtStatus* create(const OrtCustomOp* base, const OrtApi* api, const OrtKernelInfo* info,
                  void** out) noexcept {
  auto op = static_cast<const Op*>(base);
  std::unique_ptr<State> s;
  return guarded(
      api, [&] { return s ? s->where() : std::string(op->name) + " on CUDA: "; },
      [&] {
        s = std::make_unique<State>();
        s->op = op;
        s->api = api;
        s->node = node_name(api, info);
        const Attributes a{api, info};
        if (op->kind == Kind::kLrn) {
          s->attributes.lrn = lrn_attributes(a);
          s->fixed.layer = cuda::make_layer(s->attributes.lrn);
        } else {
          s->attributes = convolution_attributes(a, op->kind);
          std::vector<Tensor> w;
          for (size_t i = 1; i < op->inputs.size(); ++i) {
            int constant = 0;
            const OrtValue* v = nullptr;
            check(api, abi::KernelInfoGetConstantInput_tensor(api)(info, i, &constant, &v));
            if (!constant) break;
            w.push_back(tensor_on(true, api, v, "a weight"));
          }
          if (w.size() + 1 == op->inputs.size()) s->fixed = s->build(image_of(w, op->kind), w);
        }
        *out = s.release();
      });
}

OrtStatus* compute(void* self, OrtKernelContext* context) noexcept {
  auto s = static_cast<State*>(self);
  const OrtApi* api = s->api;
  std::vector<int64_t> running[2];  // the shapes of X and Y, once they are known, for messages
  auto where = [&] {
    return running[0].empty()
               ? s->where()
               : s->where() + "X " + text(running[0]) + ", Y " + text(running[1]) + ": ";
  };
  return guarded(api, where, [&] {
    auto input = [&](size_t i) {
      const OrtValue* v = nullptr;
      check(api, abi::KernelContext_GetInput(api)(context, i, &v));
      return v;
    };
    const Tensor x = tensor_on(false, api, input(0), "X");
    Built own;  // weights that are no constants live on the device for one run; freeing them waits
                // for its end
    const Built* built = &s->fixed;
    if (!built->layer) {
      std::vector<Tensor> w;
      for (size_t i = 1; i < s->op->inputs.size(); ++i)
        w.push_back(tensor_on(true, api, input(i), "a weight"));
      own = s->build(x.shape, w);
      built = &own;
    }
    const Shapes shapes = s->op->kind == Kind::kLrn ? normalised(s->attributes.lrn, x.shape)
                                                    : convolved(built->outline, x.shape);
    void* data = output(api, context, shapes.y);
    if (shapes.y_count == 0) return;
    void* stream = nullptr;
    check(api, abi::KernelContext_GetGPUComputeStream(api)(context, &stream));
    running[0] = x.shape, running[1] = shapes.y;
    const auto type = x.type == abi::kFloat     ? cuda::Type::kFloat
                      : x.type == abi::kFloat16 ? cuda::Type::kHalf
                                                : cuda::Type::kBFloat16;
    built->layer->run(shapes.image, type, x.data, data, stream);
  });
}

Op make_op(Kind kind, const char* name, std::vector<int> inputs) {
  Op op{};
  op.version = abi::kApiVersion;
  op.kind = kind;
  op.name = name;
  op.inputs = std::move(inputs);
  op.GetName = [](const OrtCustomOp* o) { return static_cast<const Op*>(o)->name; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return kProvider; };
  op.GetInputType = [](const OrtCustomOp* o, size_t i) {
    return static_cast<const Op*>(o)->inputs[i];
  };
  op.GetInputTypeCount = [](const OrtCustomOp* o) {
    return static_cast<const Op*>(o)->inputs.size();
  };
  op.GetOutputType = [](const OrtCustomOp* o, size_t) {
    return static_cast<const Op*>(o)->inputs[0];
  };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.GetInputCharacteristic =
      op.GetOutputCharacteristic = [](const OrtCustomOp*, size_t) { return 0; };
  op.GetInputMemoryType = [](const OrtCustomOp*, size_t i) {
    return static_cast<int>(i ? abi::kHostInput : abi::kDeviceMemory);
  };
  op.GetVariadicInputMinArity = op.GetVariadicInputHomogeneity = op.GetVariadicOutputMinArity =
      op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.CreateKernelV2 = create;
  op.KernelComputeV2 = compute;
  op.KernelDestroy = [](void* p) { delete static_cast<State*>(p); };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return std::numeric_limits<int>::max(); };
  return op;
}

// The ops of a comma-separated list of names. onnxruntime takes a node's body where its op is not
// registered, and refuses the model where the op is registered without the node's type: each op is
// registered for all types or not at all.
std::vector<Op> ops_of(std::string list) {
  std::vector<Op> ops;
  constexpr int i = abi::kInt64;
  const char* const names[] = {"MonochromaticConv", "Tucker2Conv", "CPConv", "LRN"};
  if (list == "all") list = "MonochromaticConv,Tucker2Conv,CPConv,LRN";
  for (size_t from = 0; from <= list.size();) {
    const size_t to = std::min(list.find(',', from), list.size());
    const std::string item = list.substr(from, to - from);
    from = to + 1;
    int kind = 0;
    while (kind < 4 && item != names[kind]) ++kind;
    require(kind < 4, "ONNX_LOWRANK_CUDA_OPS names '" + item +
                          "'; known are MonochromaticConv, Tucker2Conv, CPConv, LRN, or all alone");
    for (int f : {abi::kFloat, abi::kFloat16, abi::kBFloat16}) {
      const std::vector<int> inputs[] = {
          {f, f, f, f, i}, {f, i, f, f, i, f, f, i}, {f, i, f, f, i, f, f, i}, {f}};
      ops.push_back(make_op(static_cast<Kind>(kind), names[kind], inputs[kind]));
    }
  }
  return ops;
}

}  // namespace
}  // namespace onnx_lowrank

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(
    OrtSessionOptions* options, const abi::OrtApiBase* base) {
  using namespace onnx_lowrank;
  const abi::OrtApi* api = base->GetApi(abi::kApiVersion);
  if (!api) {  // CreateStatus is slot 0 of every version
    const abi::OrtApi* oldest = base->GetApi(1);
    return oldest ? abi::CreateStatus(oldest)(
                        abi::kFail, "onnx_lowrank custom ops need onnxruntime 1.17 or newer")
                  : nullptr;
  }
  return guarded(
      api, [] { return std::string("onnx_lowrank on CUDA: "); },
      [&] {
        const char* asked = std::getenv("ONNX_LOWRANK_CUDA_OPS");
        // The others' products of full rank are what cuDNN does best: their kernels wait for
        // figures from a GPU (README).
        const auto chosen = ops_of(asked && *asked ? asked : "MonochromaticConv,LRN");
        // The runtime keeps pointers to the ops for as long as any session lives: each choice is
        // kept for the process.
        const auto& ops = *new std::vector<Op>(chosen);
        OrtCustomOpDomain* domain = nullptr;
        check(api, abi::CreateCustomOpDomain(api)("onnx_lowrank", &domain));
        for (const Op& op : ops) check(api, abi::CustomOpDomain_Add(api)(domain, &op));
        check(api, abi::AddCustomOpDomain(api)(options,
                                               domain));  // the domain lives as long as the process
      });
}
