// The four ops as onnxruntime sees them: attributes and tensors in, statuses out. No exception crosses the ABI.
#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "abi/ort_abi.h"
#include "kernels.h"

namespace onnx_lowrank {
namespace {

using abi::OrtApi;

struct Error : std::runtime_error { using std::runtime_error::runtime_error; };

void require(bool ok, const std::string& message) { if (!ok) throw Error(message); }

void check(const OrtApi* api, OrtStatus* status) {
  if (!status) return;
  std::string message = abi::GetErrorMessage(api)(status);
  abi::ReleaseStatus(api)(status);
  throw Error(message);
}

std::string text(const std::vector<int64_t>& shape) {
  std::string s = "[";
  for (size_t i = 0; i < shape.size(); ++i) s += (i ? "," : "") + std::to_string(shape[i]);
  return s + "]";
}

struct Tensor {
  std::vector<int64_t> shape;
  const void* data;
  int type;
  int64_t count() const { int64_t n = 1; for (auto d : shape) n *= d; return n; }
};

Tensor tensor(const OrtApi* api, const OrtValue* value) {
  OrtTensorTypeAndShapeInfo* info = nullptr;
  check(api, abi::GetTensorTypeAndShape(api)(value, &info));
  Tensor t{};
  size_t rank = 0;
  OrtStatus* status = abi::GetDimensionsCount(api)(info, &rank);
  t.shape.resize(rank);
  if (!status) status = abi::GetDimensions(api)(info, t.shape.data(), rank);
  if (!status) status = abi::GetTensorElementType(api)(info, &t.type);
  abi::ReleaseTensorTypeAndShapeInfo(api)(info);
  check(api, status);
  void* data = nullptr;
  check(api, abi::GetTensorMutableData(api)(const_cast<OrtValue*>(value), &data));
  t.data = data;
  return t;
}

struct Attributes {
  const OrtApi* api;
  const OrtKernelInfo* info;
  int64_t integer(const char* name) const {
    int64_t v = 0;
    check(api, abi::KernelInfoGetAttribute_int64(api)(info, name, &v));
    return v;
  }
  float real(const char* name) const {
    float v = 0;
    check(api, abi::KernelInfoGetAttribute_float(api)(info, name, &v));
    return v;
  }
  float real(const char* name, float otherwise) const {
    float v = 0;
    if (OrtStatus* s = abi::KernelInfoGetAttribute_float(api)(info, name, &v)) { abi::ReleaseStatus(api)(s); return otherwise; }
    return v;
  }
  std::vector<int64_t> integers(const char* name) const {
    size_t n = 0;
    check(api, abi::KernelInfoGetAttributeArray_int64(api)(info, name, nullptr, &n));
    std::vector<int64_t> v(n);
    check(api, abi::KernelInfoGetAttributeArray_int64(api)(info, name, v.data(), &n));
    return v;
  }
};

struct Node {  // what the attributes say
  std::vector<int64_t> strides, dilations, pads;
  Activation activation;
  int64_t colours = 0, input_groups = 0, output_groups = 0;
  Lrn lrn{};
};

std::vector<float> floats(const Tensor& t, const char* name) {
  require(t.type == abi::kFloat, std::string(name) + " is not float32");
  auto p = static_cast<const float*>(t.data);
  return {p, p + t.count()};
}

std::vector<int64_t> permutation(const Tensor& t, int64_t count, const char* name) {
  require(t.type == abi::kInt64 && t.shape == std::vector<int64_t>{count},
          std::string(name) + " has shape " + text(t.shape) + ", expected int64 [" + std::to_string(count) + "]");
  auto p = static_cast<const int64_t*>(t.data);
  std::vector<int64_t> v(p, p + count);
  std::vector<bool> seen(count);
  for (int64_t i : v) {
    require(i >= 0 && i < count && !seen[i], std::string(name) + " is not a permutation");
    seen[i] = true;
  }
  return v;
}

void expect(const Tensor& t, const std::vector<int64_t>& shape, const char* name) {
  require(t.shape == shape, std::string(name) + " has shape " + text(t.shape) + ", expected " + text(shape));
}

Window window(const Node& n, const std::vector<int64_t>& weight) {
  const size_t axes = weight.size() - 2;
  require(n.strides.size() == axes && n.dilations.size() == axes && n.pads.size() == 2 * axes,
          "strides, dilations and pads do not fit a kernel of " + std::to_string(axes) + " axes");
  Window w;
  for (size_t i = 0; i < axes; ++i) {
    const size_t to = 3 - axes + i;
    w.kernel[to] = weight[2 + i];
    w.stride[to] = n.strides[i];
    w.dilation[to] = n.dilations[i];
    w.begin[to] = n.pads[i];
    w.end[to] = n.pads[axes + i];
    require(w.kernel[to] > 0 && w.stride[to] > 0 && w.dilation[to] > 0 && w.begin[to] >= 0 && w.end[to] >= 0,
            "kernel, strides and dilations must be positive and pads not negative");
  }
  return w;
}

std::vector<int64_t> with_axes(std::vector<int64_t> head, const std::vector<int64_t>& x, bool ones, const Tensor* from = nullptr) {
  for (size_t i = 2; i < x.size(); ++i) head.push_back(ones ? 1 : from->shape[i]);
  return head;
}

Monochromatic monochromatic(const Node& n, const std::vector<int64_t>& x, const std::vector<Tensor>& w) {
  require(w[1].shape.size() == x.size(), "filters has " + std::to_string(w[1].shape.size()) + " axes, X has " + std::to_string(x.size()));
  const int64_t F = w[1].shape[0];
  require(n.colours > 0 && F > 0 && F % n.colours == 0, std::to_string(F) + " filters do not divide into " + std::to_string(n.colours) + " colours");
  expect(w[0], with_axes({n.colours, x[1]}, x, true), "colours");
  expect(w[1], with_axes({F, 1}, x, false, &w[1]), "filters");
  expect(w[2], {F}, "bias");
  return {x[1], F, n.colours, window(n, w[1].shape), n.activation, floats(w[0], "colours"), floats(w[1], "filters"),
          floats(w[2], "bias"), permutation(w[3], F, "order")};
}

LowRank low_rank(bool depthwise, const Node& n, const std::vector<int64_t>& x, const std::vector<Tensor>& w) {
  const int64_t G = n.input_groups, H = n.output_groups, C = x[1];
  const Tensor &A = w[1], &core = w[2], &B = w[4];
  require(A.shape.size() == x.size() && core.shape.size() == x.size() && B.shape.size() == x.size(), "A, core and B must have as many axes as X");
  const int64_t F = B.shape[0];
  require(G > 0 && H > 0 && C % G == 0 && F > 0 && F % H == 0, "input_groups and output_groups must divide the channels " + std::to_string(C) + " and " + std::to_string(F));
  require(A.shape[0] > 0 && A.shape[0] % (G * H) == 0 && core.shape[0] > 0 && core.shape[0] % (G * H) == 0, "rows of A and core must be a multiple of input_groups x output_groups");
  const int64_t K1 = A.shape[0] / (G * H), K2 = core.shape[0] / (G * H);
  require(!depthwise || K1 == K2, "A has " + std::to_string(A.shape[0]) + " rows, depthwise " + std::to_string(core.shape[0]));
  expect(A, with_axes({G * H * K1, C / G}, x, true), "A");
  expect(core, with_axes({G * H * K2, depthwise ? 1 : K1}, x, false, &core), depthwise ? "depthwise" : "core");
  expect(B, with_axes({F, G * K2}, x, true), "B");
  expect(w[5], {F}, "bias");
  auto middle = permutation(w[3], G * H * K2, "middle_order");
  for (int64_t h = 0, i = 0; h < H; ++h)
    for (int64_t g = 0; g < G; ++g)
      for (int64_t k = 0; k < K2; ++k, ++i)
        require(middle[i] == (g * H + h) * K2 + k, "middle_order is not the permutation from (g,h) to (h,g) order");
  return {depthwise, C, F, G, H, K1, K2, window(n, core.shape), n.activation, floats(A, "A"), floats(core, "core"),
          floats(B, "B"), floats(w[5], "bias"), permutation(w[0], C, "input_order"), permutation(w[6], F, "output_order")};
}

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

template <class F>
OrtStatus* guarded(const OrtApi* api, const std::string& where, F&& f) noexcept {
  try { f(); return nullptr; }
  catch (const std::exception& e) { return abi::CreateStatus(api)(abi::kInvalidArgument, (where + e.what()).c_str()); }
  catch (...) { return abi::CreateStatus(api)(abi::kFail, where.c_str()); }
}

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
    kernel->run(image, static_cast<const float*>(x.data), static_cast<float*>(data),
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
  op.GetOutputType = [](const OrtCustomOp*, size_t) -> int { return abi::kFloat; };
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

}  // namespace
}  // namespace onnx_lowrank

extern "C" __attribute__((visibility("default"))) OrtStatus* RegisterCustomOps(OrtSessionOptions* options, const abi::OrtApiBase* base) {
  using namespace onnx_lowrank;
  const abi::OrtApi* api = base->GetApi(abi::kApiVersion);
  if (!api) {  // CreateStatus is slot 0 of every version
    const abi::OrtApi* oldest = base->GetApi(1);
    return oldest ? abi::CreateStatus(oldest)(abi::kFail, "onnx_lowrank custom ops need onnxruntime 1.17 or newer") : nullptr;
  }
  constexpr int f = abi::kFloat, i = abi::kInt64;
  return guarded(api, "onnx_lowrank: ", [&] {
    selected_isa();
    static const Op ops[] = {
        make_op(Kind::kMonochromatic, "MonochromaticConv", {f, f, f, f, i}),
        make_op(Kind::kTucker2, "Tucker2Conv", {f, i, f, f, i, f, f, i}),
        make_op(Kind::kCp, "CPConv", {f, i, f, f, i, f, f, i}),
        make_op(Kind::kLrn, "LRN", {f}),
    };
    OrtCustomOpDomain* domain = nullptr;
    check(api, abi::CreateCustomOpDomain(api)("onnx_lowrank", &domain));
    for (const Op& op : ops) check(api, abi::CustomOpDomain_Add(api)(domain, &op));
    check(api, abi::AddCustomOpDomain(api)(options, domain));  // the domain lives as long as the process
  });
}
