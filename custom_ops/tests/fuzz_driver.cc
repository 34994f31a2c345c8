// Stands in for libFuzzer where there is no clang: COUNT random byte strings from SEED, or files
// that a fuzzer left.
//   fuzz_nodes COUNT SEED | fuzz_nodes FILE...
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

int main(int argc, char** argv) {
  char* end = nullptr;
  const long count = argc == 3 ? std::strtol(argv[1], &end, 10) : 0;
  if (argc == 3 && !*end) {
    std::mt19937 engine(static_cast<uint32_t>(std::strtoul(argv[2], nullptr, 10)));
    for (long i = 0; i < count; ++i) {
      std::vector<uint8_t> bytes(32 + engine() % 224);
      for (uint8_t& b : bytes) b = static_cast<uint8_t>(engine() >> 24);
      std::ofstream("last_input", std::ios::binary)
          .write(reinterpret_cast<const char*>(bytes.data()), bytes.size());
      LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
    }
    return 0;
  }
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  }
  return argc < 2;
}
