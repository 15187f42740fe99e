// A device "second" whose memory is the CPU's, and which is as strict as a GPU about what lies where.
//
// Its operations are those of the CPU. Tensors of both in one operation are an error (0-dim ones and indices aside), its
// memory cannot be read as NumPy's, and its random numbers are its own: the same engine as the CPU's, so that one seed
// gives both devices the same numbers.

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/NativeFunctions.h>
#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <ATen/native/CPUFallback.h>
#include <ATen/native/Resize.h>
#include <c10/core/Allocator.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>

namespace {
constexpr auto kSecond = c10::DeviceType::PrivateUse1;
const c10::Device kDevice(kSecond, 0);
const char* const kMixed = "Expected all tensors to be on the same device, got some on second:0 and some on cpu, in ";

struct Memory final : c10::Allocator {
  static void release(void* place) { std::free(place); }
  c10::DataPtr allocate(size_t bytes) override {
    void* place = bytes ? std::aligned_alloc(64, (bytes + 63) / 64 * 64) : nullptr;
    return {place, place, &release, kDevice};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &release; }
  void copy_data(void* to, const void* from, size_t bytes) const override { std::memcpy(to, from, bytes); }
};
Memory memory;

struct Noise final : at::CPUGeneratorImpl {
  explicit Noise(uint64_t seed) : CPUGeneratorImpl(seed) { device_ = kDevice; }
  static void move(at::CPUGeneratorImpl* from, at::CPUGeneratorImpl* to) {
    to->set_engine(from->engine());
    to->set_next_float_normal_sample(from->next_float_normal_sample());
    to->set_next_double_normal_sample(from->next_double_normal_sample());
  }
};
at::Generator& noise() {
  static at::Generator generator = at::make_generator<Noise>(c10::default_rng_seed_val);
  return generator;
}

struct Hooks final : at::PrivateUse1HooksInterface {
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override { return noise(); }
  at::Generator getNewGenerator(c10::DeviceIndex) const override {
    return at::make_generator<Noise>(c10::default_rng_seed_val);
  }
  c10::Device getDeviceFromPtr(void*) const override { return kDevice; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetAllocator(c10::DeviceType::CPU); }
};

// There is one stream, and all of it is done.
struct Guard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kSecond; }
  c10::Device exchangeDevice(c10::Device) const override { return kDevice; }
  c10::Device getDevice() const override { return kDevice; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device d) const override { return c10::Stream(c10::Stream::DEFAULT, d); }
  c10::Stream getNewStream(c10::Device d, int = 0) const override { return getStream(d); }
  c10::Stream exchangeStream(c10::Stream s) const override { return s; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
};

const c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

at::Tensor empty(at::IntArrayRef size, std::optional<at::ScalarType> dtype, std::optional<at::Layout>,
                 std::optional<at::Device>, std::optional<bool>, std::optional<at::MemoryFormat> format) {
  return at::detail::empty_generic(size, &memory, kKeys, c10::dtype_or_default(dtype), format);
}
at::Tensor empty_strided(at::IntArrayRef size, at::IntArrayRef stride, std::optional<at::ScalarType> dtype,
                         std::optional<at::Layout>, std::optional<at::Device>, std::optional<bool>) {
  return at::detail::empty_strided_generic(size, stride, &memory, kKeys, c10::dtype_or_default(dtype));
}

// The same memory, as a tensor of the CPU.
at::Tensor on_cpu(const at::Tensor& t) {
  if (t.device() != kDevice) return t;
  return at::from_blob(t.data_ptr(), t.sizes(), t.strides(), [t](void*) {},
                       at::TensorOptions().dtype(t.dtype()).device(at::kCPU));
}
at::Tensor on_second(const at::Tensor& t) {
  if (!t.defined()) return t;
  auto out = at::empty_strided(t.sizes(), t.strides(), t.options().device(kDevice));
  on_cpu(out).copy_(t);
  return out;
}
at::Tensor copy_from(const at::Tensor& from, const at::Tensor& to, bool) {
  on_cpu(to).copy_(on_cpu(from));
  return to;
}
at::Tensor copy_from_and_resize(const at::Tensor& from, const at::Tensor& to) {
  if (to.sizes() != from.sizes()) to.resize_(from.sizes());
  return copy_from(from, to, false);
}
at::Scalar local_scalar(const at::Tensor& t) { return on_cpu(t).item(); }

const at::Tensor& resize(const at::Tensor& self, at::IntArrayRef size, std::optional<at::MemoryFormat>) {
  auto* impl = self.unsafeGetTensorImpl();
  impl->set_sizes_contiguous(size);
  const size_t bytes = (impl->numel() + impl->storage_offset()) * impl->itemsize();
  auto storage = impl->unsafe_storage();
  if (storage.nbytes() < bytes) {
    auto fresh = memory.allocate(bytes);
    if (storage.nbytes()) std::memcpy(fresh.get(), storage.data(), storage.nbytes());
    storage.set_data_ptr_noswap(std::move(fresh));
    storage.set_nbytes(bytes);
  }
  return self;
}
at::Tensor& set_storage(at::Tensor& self, at::Storage source, int64_t offset, at::IntArrayRef size,
                        at::IntArrayRef stride) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(std::move(source));
  self.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride);
  self.unsafeGetTensorImpl()->set_storage_offset(offset);
  return self;
}
at::Tensor& set_tensor(at::Tensor& self, const at::Tensor& source) {
  return set_storage(self, source.storage(), source.storage_offset(), source.sizes(), source.strides());
}
at::Tensor& set_whole_storage(at::Tensor& self, at::Storage source) {
  const int64_t n = source.nbytes() / self.itemsize();
  return set_storage(self, std::move(source), 0, {n}, {1});
}
at::Tensor view(const at::Tensor& self, c10::SymIntArrayRef size) {
  return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size));
}

at::Tensor convolution(const at::Tensor& x, const at::Tensor& w, const std::optional<at::Tensor>& b,
                       at::IntArrayRef stride, at::IntArrayRef padding, at::IntArrayRef dilation, bool transposed,
                       at::IntArrayRef output_padding, int64_t groups) {
  std::optional<at::Tensor> bias;
  if (b && b->defined()) bias = *b;
  TORCH_CHECK(x.device() == w.device() && (!bias || bias->device() == x.device()), kMixed, "convolution");
  if (bias) bias = on_cpu(*bias);
  return on_second(at::convolution(on_cpu(x), on_cpu(w), bias, stride, padding, dilation, transposed, output_padding,
                                   groups));
}
std::tuple<at::Tensor, at::Tensor, at::Tensor> convolution_backward(
    const at::Tensor& g, const at::Tensor& x, const at::Tensor& w, at::IntArrayRef stride, at::IntArrayRef padding,
    at::IntArrayRef dilation, bool transposed, at::IntArrayRef output_padding, int64_t groups,
    std::array<bool, 3> mask) {
  std::vector<int64_t> bias{transposed ? w.size(1) * groups : w.size(0)};
  auto [a, b, c] = at::convolution_backward(on_cpu(g), on_cpu(x), on_cpu(w), bias, stride, padding, dilation,
                                            transposed, output_padding, groups, mask);
  return {on_second(a), on_second(b), on_second(c)};
}

// The cells of recurrent networks, which torch looks for in one piece on any device but a CPU.
at::Tensor with_bias(const at::Tensor& gates, const std::optional<at::Tensor>& bias) {
  return bias && bias->defined() ? gates + *bias : gates;
}
std::tuple<at::Tensor, at::Tensor, at::Tensor> lstm_cell(const at::Tensor& of_x, const at::Tensor& of_h,
                                                         const at::Tensor& c, const std::optional<at::Tensor>& b_x,
                                                         const std::optional<at::Tensor>& b_h) {
  auto parts = (with_bias(of_x, b_x) + with_bias(of_h, b_h)).chunk(4, -1);
  auto next = parts[1].sigmoid() * c + parts[0].sigmoid() * parts[2].tanh();
  return {parts[3].sigmoid() * next.tanh(), next, at::empty({0}, of_x.options())};
}
std::tuple<at::Tensor, at::Tensor> gru_cell(const at::Tensor& of_x, const at::Tensor& of_h, const at::Tensor& h,
                                            const std::optional<at::Tensor>& b_x,
                                            const std::optional<at::Tensor>& b_h) {
  auto x = with_bias(of_x, b_x).chunk(3, -1), state = with_bias(of_h, b_h).chunk(3, -1);
  auto fresh = (x[2] + (x[0] + state[0]).sigmoid() * state[2]).tanh(), keep = (x[1] + state[1]).sigmoid();
  return {fresh + keep * (h - fresh), at::empty({0}, of_x.options())};
}

// A number beside tensors of the device is one of the device: torch asks the first tensor where the result belongs.
void move_numbers(torch::jit::Stack* stack, size_t n) {
  bool second = false;
  for (size_t i = 0; i < n; i++) {
    const auto& value = torch::jit::peek(*stack, i, n);
    second |= value.isTensor() && value.toTensor().defined() && value.toTensor().device() == kDevice;
  }
  for (size_t i = 0; second && i < n; i++) {
    auto& value = torch::jit::peek(*stack, i, n);
    if (!value.isTensor() || !value.toTensor().defined()) continue;
    const auto t = value.toTensor();
    if (t.dim() == 0 && t.device() != kDevice) value = on_second(t);
  }
}

bool is_mixed(const std::string& name, at::ArrayRef<c10::IValue> arguments) {
  bool second = false, cpu = false;
  auto look = [&](const at::Tensor& t) {
    if (!t.defined()) return;
    (t.device() == kDevice ? second : cpu) |= t.device() == kDevice || t.dim() > 0;
  };
  for (const auto& value : arguments) {
    if (value.isTensor()) look(value.toTensor());
    else if (value.isTensorList()) for (const auto& t : value.toTensorVector()) look(t);
    else if (value.isOptionalTensorList()) for (const auto& t : value.toOptionalTensorVector()) if (t) look(*t);
  }
  static const std::set<std::string> may{"aten::index.Tensor", "aten::index", "aten::index_put_", "aten::index_put",
                                         "aten::_index_put_impl_", "aten::copy_"};
  return second && cpu && !may.count(name);
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& arguments = op.schema().arguments();
  const auto n = arguments.size();
  TORCH_CHECK(!is_mixed(op.schema().name(), torch::jit::last(*stack, n)), kMixed, op.schema().name());
  move_numbers(stack, n);
  at::Generator given, used;
  if (op.hasTag(at::Tag::nondeterministic_seeded)) {
    for (size_t i = 0; i < n; i++) {
      if (arguments[i].type()->str().find("Generator") == std::string::npos) continue;
      auto& value = torch::jit::peek(*stack, i, n);
      given = value.isNone() ? noise() : value.toGenerator();
      TORCH_CHECK(given.device() == kDevice, "Expected a 'second' device type for generator but found '",
                  given.device(), "'");
      used = at::detail::createCPUGenerator();
      Noise::move(given.get<Noise>(), used.get<at::CPUGeneratorImpl>());
      value = used;
    }
  }
  at::native::cpu_fallback(op, stack);
  if (used.defined()) Noise::move(used.get<at::CPUGeneratorImpl>(), given.get<Noise>());
}

const int registered = [] {
  c10::SetAllocator(kSecond, &memory);
  at::RegisterPrivateUse1HooksInterface(new Hooks());
  return 0;
}();
}  // namespace

C10_REGISTER_GUARD_IMPL(PrivateUse1, Guard);

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", TORCH_FN(empty));
  m.impl("empty_strided", TORCH_FN(empty_strided));
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(view));
  m.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  m.impl("unfold", TORCH_FN(at::native::unfold));
  m.impl("view_as_real", TORCH_FN(at::native::view_as_real));
  m.impl("view_as_complex", TORCH_FN(at::native::view_as_complex));
  m.impl("resize_", TORCH_FN(resize));
  m.impl("set_.source_Storage", TORCH_FN(set_whole_storage));
  m.impl("set_.source_Storage_storage_offset", TORCH_FN(set_storage));
  m.impl("set_.source_Tensor", TORCH_FN(set_tensor));
  m.impl("_copy_from", TORCH_FN(copy_from));
  m.impl("_copy_from_and_resize", TORCH_FN(copy_from_and_resize));
  m.impl("_local_scalar_dense", TORCH_FN(local_scalar));
  m.impl("convolution_overrideable", TORCH_FN(convolution));
  m.impl("convolution_backward_overrideable", TORCH_FN(convolution_backward));
}
TORCH_LIBRARY_IMPL(aten, AutogradPrivateUse1, m) {
  m.impl("_thnn_fused_lstm_cell", TORCH_FN(lstm_cell));
  m.impl("_thnn_fused_gru_cell", TORCH_FN(gru_cell));
}
TORCH_LIBRARY_IMPL(_, PrivateUse1, m) {
  m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>());
}
TORCH_LIBRARY(second, m) {
  m.def("seed(int seed) -> ()", [](int64_t seed) { noise().set_current_seed(static_cast<uint64_t>(seed)); });
  m.def("get_state() -> Tensor", [] { return noise().get_state(); });
  m.def("set_state(Tensor state) -> ()", [](const at::Tensor& state) { noise().set_state(state); });
}
