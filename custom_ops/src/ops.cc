// The four ops as onnxruntime sees them: attributes and tensors in, statuses out. No exception crosses the ABI.
#include <algorithm>
#include <atomic>

#include "abi/values.h"
#include "describe.h"
#include "half.h"
#include "kernels.h"

namespace onnx_lowrank {
namespace {

enum class Kind { kMonochromatic, kTucker2, kCp, kLrn };

struct Op : OrtCustomOp {
  Kind kind;
  const char* name;
  std::vector<int> inputs;
};

struct State {
  const Op* op;
  const OrtApi* api;
  std::string node;
  Node attributes;
  std::vector<Tensor> constants;  // empty unless all weights are constant; valid during creation only
  std::unique_ptr<Kernel> kernel;
  int64_t kernel_channels = -1;
  size_t kernel_axes = 0;
  Window kernel_window;
  int64_t kernel_filters = 0;

  std::unique_ptr<Kernel> build(const std::vector<int64_t>& x, const std::vector<Tensor>& w, Window* win, int64_t* filters) const {
    if (op->kind == Kind::kLrn) { *filters = x[1]; return make_kernel(selected_isa(), attributes.lrn); }
    if (op->kind == Kind::kMonochromatic) {
      auto d = monochromatic(attributes, x, w);
      *win = d.window; *filters = d.filters;
      return make_kernel(selected_isa(), d);
    }
    auto d = low_rank(op->kind == Kind::kCp, attributes, x, w);
    *win = d.window; *filters = d.filters;
    return make_kernel(selected_isa(), d);
  }
};

OrtStatus* create(const OrtCustomOp* base, const OrtApi* api, const OrtKernelInfo* info, void** out) noexcept {
  auto op = static_cast<const Op*>(base);
  std::string where = std::string(op->name) + ": ";
  return guarded(api, where, [&] {
    auto s = std::make_unique<State>();
    s->op = op; s->api = api;
    size_t length = 0;
    if (OrtStatus* st = abi::KernelInfo_GetNodeName(api)(info, nullptr, &length)) abi::ReleaseStatus(api)(st);
    if (length) {
      std::string name(length, '\0');
      if (OrtStatus* st = abi::KernelInfo_GetNodeName(api)(info, name.data(), &length)) abi::ReleaseStatus(api)(st);
      else s->node = name.c_str();
    }
    where = std::string(op->name) + " '" + s->node + "': ";
    Attributes a{api, info};
    Node& n = s->attributes;
    if (op->kind == Kind::kLrn) {
      n.lrn = {a.integer("size"), a.real("alpha", 1e-4f), a.real("beta", 0.75f), a.real("bias", 1.0f)};
      require(n.lrn.size > 0, "size must be positive");
    } else {
      n.strides = a.integers("strides"); n.dilations = a.integers("dilations"); n.pads = a.integers("pads");
      n.activation = {a.real("min"), a.real("max"), a.real("alpha")};
      if (op->kind == Kind::kMonochromatic) n.colours = a.integer("colours");
      else { n.input_groups = a.integer("input_groups"); n.output_groups = a.integer("output_groups"); }
      std::vector<Tensor> w;
      for (size_t i = 1; i < op->inputs.size(); ++i) {
        int constant = 0;
        const OrtValue* v = nullptr;
        check(api, abi::KernelInfoGetConstantInput_tensor(api)(info, i, &constant, &v));
        if (!constant) break;
        w.push_back(tensor(api, v));
      }
      if (w.size() + 1 == op->inputs.size()) {  // the channels of X follow from the weights
        const bool mono = op->kind == Kind::kMonochromatic;
        const Tensor& first = mono ? w[0] : w[1];
        require(first.shape.size() >= 3, "weights have shape " + text(first.shape) + ", expected 3 to 5 axes");
        require(first.shape.size() <= 5, "at most three spatial axes; weights have shape " + text(first.shape));
        std::vector<int64_t> x(first.shape.size(), 1);
        x[1] = mono ? first.shape[1] : w[0].shape.empty() ? 0 : w[0].shape[0];
        s->kernel = s->build(x, w, &s->kernel_window, &s->kernel_filters);
        s->kernel_channels = x[1];
        s->kernel_axes = x.size();
      }
    }
    *out = s.release();
  });
}

OrtStatus* compute(void* self, OrtKernelContext* context) noexcept {
  auto s = static_cast<State*>(self);
  const OrtApi* api = s->api;
  const std::string where = std::string(s->op->name) + " '" + s->node + "': ";
  return guarded(api, where, [&] {
    std::vector<Tensor> in;
    for (size_t i = 0; i < s->op->inputs.size(); ++i) {
      if (i && s->kernel) break;
      const OrtValue* v = nullptr;
      check(api, abi::KernelContext_GetInput(api)(context, i, &v));
      in.push_back(tensor(api, v));
    }
    const Tensor& x = in[0];
    const bool lrn = s->op->kind == Kind::kLrn;
    require(x.shape.size() >= (lrn ? 2u : 3u) && (lrn || x.shape.size() <= 5), "X has shape " + text(x.shape) + ", expected one to three spatial axes");
    Window win = s->kernel_window;
    int64_t filters = s->kernel_filters;
    std::unique_ptr<Kernel> own;
    Kernel* kernel = s->kernel.get();
    if (!kernel) {
      own = s->build(x.shape, {in.begin() + 1, in.end()}, &win, &filters);
      kernel = own.get();
    } else {
      require(x.shape.size() == s->kernel_axes && x.shape[1] == s->kernel_channels,
              "X has shape " + text(x.shape) + ", expected " + std::to_string(s->kernel_channels) + " channels and " + std::to_string(s->kernel_axes) + " axes");
    }
    Image image{x.shape[0], x.shape[1], {1, 1, 1}};
    std::vector<int64_t> out{x.shape[0], filters};
    if (lrn) {
      out = x.shape;
      for (size_t i = 2; i < x.shape.size(); ++i) image.size[2] *= x.shape[i];
    } else {
      for (size_t i = 2; i < x.shape.size(); ++i) {
        const int axis = static_cast<int>(5 - x.shape.size() + i - 2);
        image.size[axis] = x.shape[i];
        out.push_back(win.output(axis, x.shape[i]));
        require(out.back() > 0, "X of shape " + text(x.shape) + " is smaller than the kernel");
      }
    }
    OrtValue* y = nullptr;
    check(api, abi::KernelContext_GetOutput(api)(context, 0, out.data(), out.size(), &y));
    void* data = nullptr;
    check(api, abi::GetTensorMutableData(api)(y, &data));
    int64_t count = 1;
    for (auto d : out) count *= d;
    if (count == 0) return;
    // The kernels compute in float32: other types are widened before and rounded once, after the activation.
    const bool wide = x.type == abi::kFloat;
    std::vector<float> in_float, out_float;
    if (!wide) { in_float = floats(x, "X"); out_float.resize(count); }
    kernel->run(image, wide ? static_cast<const float*>(x.data) : in_float.data(), wide ? static_cast<float*>(data) : out_float.data(),
                [&](size_t n, const std::function<void(size_t)>& body) {
                  if (n == 1) return body(0);
                  // An exception must not unwind through the pool's thread.
                  struct Job { const std::function<void(size_t)>& body; std::atomic_flag failed = ATOMIC_FLAG_INIT; bool bad = false; } job{body};
                  check(api, abi::KernelContext_ParallelFor(api)(context, [](void* p, size_t i) {
                    auto j = static_cast<Job*>(p);
                    try { j->body(i); } catch (...) { if (!j->failed.test_and_set()) j->bad = true; }
                  }, n, 0, &job));
                  require(!job.bad, "a worker ran out of memory");
                });
    if (x.type == abi::kFloat16) narrow<Float16>(out_float.data(), data, count);
    if (x.type == abi::kBFloat16) narrow<BFloat16>(out_float.data(), data, count);
  });
}

Op make_op(Kind kind, const char* name, std::vector<int> inputs) {
  Op op{};
  op.version = abi::kApiVersion;
  op.kind = kind; op.name = name; op.inputs = std::move(inputs);
  op.GetName = [](const OrtCustomOp* o) { return static_cast<const Op*>(o)->name; };
  op.GetExecutionProviderType = [](const OrtCustomOp*) -> const char* { return "CPUExecutionProvider"; };
  op.GetInputType = [](const OrtCustomOp* o, size_t i) { return static_cast<const Op*>(o)->inputs[i]; };
  op.GetInputTypeCount = [](const OrtCustomOp* o) { return static_cast<const Op*>(o)->inputs.size(); };
  op.GetOutputType = [](const OrtCustomOp* o, size_t) { return static_cast<const Op*>(o)->inputs[0]; };
  op.GetOutputTypeCount = [](const OrtCustomOp*) -> size_t { return 1; };
  op.GetInputCharacteristic = op.GetOutputCharacteristic = op.GetInputMemoryType = [](const OrtCustomOp*, size_t) { return 0; };
  op.GetVariadicInputMinArity = op.GetVariadicInputHomogeneity = op.GetVariadicOutputMinArity =
      op.GetVariadicOutputHomogeneity = [](const OrtCustomOp*) { return 1; };
  op.CreateKernelV2 = create;
  op.KernelComputeV2 = compute;
  op.KernelDestroy = [](void* p) { delete static_cast<State*>(p); };
  op.GetStartVersion = [](const OrtCustomOp*) { return 1; };
  op.GetEndVersion = [](const OrtCustomOp*) { return std::numeric_limits<int>::max(); };
  return op;
}

// One op of each name per float type: onnxruntime takes the one whose types fit the node.
std::vector<Op> every_op() {
  std::vector<Op> ops;
  constexpr int i = abi::kInt64;
  for (int f : {abi::kFloat, abi::kFloat16, abi::kBFloat16}) {
    ops.push_back(make_op(Kind::kMonochromatic, "MonochromaticConv", {f, f, f, f, i}));
    ops.push_back(make_op(Kind::kTucker2, "Tucker2Conv", {f, i, f, f, i, f, f, i}));
    ops.push_back(make_op(Kind::kCp, "CPConv", {f, i, f, f, i, f, f, i}));
    ops.push_back(make_op(Kind::kLrn, "LRN", {f}));
  }
  return ops;
}

}  // namespace
}  // namespace onnx_lowrank

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const abi::OrtApiBase* base) {
  using namespace onnx_lowrank;
  const abi::OrtApi* api = base->GetApi(abi::kApiVersion);
  if (!api) {  // CreateStatus is slot 0 of every version
    const abi::OrtApi* oldest = base->GetApi(1);
    return oldest ? abi::CreateStatus(oldest)(abi::kFail, "onnx_lowrank custom ops need onnxruntime 1.17 or newer") : nullptr;
  }
  return guarded(api, "onnx_lowrank: ", [&] {
    selected_isa();
    static const std::vector<Op> ops = every_op();
    OrtCustomOpDomain* domain = nullptr;
    check(api, abi::CreateCustomOpDomain(api)("onnx_lowrank", &domain));
    for (const Op& op : ops) check(api, abi::CustomOpDomain_Add(api)(domain, &op));
    check(api, abi::AddCustomOpDomain(api)(options, domain));  // the domain lives as long as the process
  });
}
