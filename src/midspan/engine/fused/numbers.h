// Sizes of a block, sixteen floats at a time, and the conversions that the step needs.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr int kRows = 16;     // rows that stand side by side in a block of weights
constexpr int kDeep = 64;     // columns of a block
constexpr int kGroup = 32;    // columns that share a scale
constexpr int kTokens = 8;    // tokens that share one reading of a block from memory to registers
constexpr int kMany = 32;      // tokens from which on a step is tiles of bfloat16 where the processor has them
constexpr int kFew = 64;       // tokens of a step otherwise
constexpr int kMaxTokens = 512;
constexpr int kTile = 64;     // keys between two rescalings of the softmax

// Memory that begins at a multiple of 64 bytes.
template <class T>
struct Aligned {
  using value_type = T;
  Aligned() = default;
  template <class Other>
  Aligned(const Aligned<Other>&) {}
  T* allocate(size_t n) { return static_cast<T*>(::operator new(n * sizeof(T), std::align_val_t(64))); }
  void deallocate(T* at, size_t) { ::operator delete(at, std::align_val_t(64)); }
  bool operator==(const Aligned&) const { return true; }
};
template <class T>
using Vector = std::vector<T, Aligned<T>>;

inline int padded(int n, int unit) { return (n + unit - 1) / unit * unit; }

inline void pause_() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

inline float from_bf16(uint16_t x) {
  uint32_t bits = uint32_t(x) << 16;
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
}

inline uint16_t to_bf16(float x) {  // to nearest, ties to even
  uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Sixteen floats; the compiler makes of them what the processor has.
typedef float Lanes __attribute__((vector_size(64)));
typedef uint32_t Bits __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));

inline Lanes lanes(const float* from) {
  Lanes x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}

inline Lanes lanes(const uint16_t* from) {
  Halves x;
  std::memcpy(&x, from, sizeof(x));
  return (Lanes)(__builtin_convertvector(x, Bits) << 16);
}

#if defined(__clang__)
#define MIX(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MIX(a, b, ...) __builtin_shuffle(a, b, Bits{__VA_ARGS__})
#endif

// Lane i is the sum of the lanes of x[i]: halves of two vectors side by side, until one vector is left.
inline Lanes sums(Lanes* x) {
  for (int i = 0; i < 8; i++)
    x[i] = MIX(x[i], x[i + 8], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
           MIX(x[i], x[i + 8], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  for (int i = 0; i < 4; i++)
    x[i] = MIX(x[i], x[i + 4], 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27) +
           MIX(x[i], x[i + 4], 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
  for (int i = 0; i < 2; i++)
    x[i] = MIX(x[i], x[i + 2], 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
           MIX(x[i], x[i + 2], 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  return MIX(x[0], x[1], 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30) +
         MIX(x[0], x[1], 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
}

// a0 b0 a1 b1 ... of the first, and of the second halves of two vectors.
typedef uint16_t Words __attribute__((vector_size(64)));
#if defined(__clang__)
#define MIX_WORDS(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define MIX_WORDS(a, b, ...) __builtin_shuffle(a, b, Words{__VA_ARGS__})
#endif
inline Words first_halves(Words a, Words b) {
  return MIX_WORDS(a, b, 0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44,
                   13, 45, 14, 46, 15, 47);
}
inline Words second_halves(Words a, Words b) {
  return MIX_WORDS(a, b, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24, 56, 25, 57, 26, 58, 27,
                   59, 28, 60, 29, 61, 30, 62, 31, 63);
}

// Sixteen rows of sixteen become sixteen columns.
inline void transpose(Bits* x) {
  for (int i = 0; i < 8; i++) {
    const Bits a = x[i], b = x[i + 8];
    x[i] = MIX(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23);
    x[i + 8] = MIX(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  }
  for (int n = 0; n < 8; n++) {
    const int i = n / 4 * 8 + n % 4;
    const Bits a = x[i], b = x[i + 4];
    x[i] = MIX(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27);
    x[i + 4] = MIX(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31);
  }
  for (int n = 0; n < 8; n++) {
    const int i = n / 2 * 4 + n % 2;
    const Bits a = x[i], b = x[i + 2];
    x[i] = MIX(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29);
    x[i + 2] = MIX(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
  }
  for (int n = 0; n < 8; n++) {
    const Bits a = x[2 * n], b = x[2 * n + 1];
    x[2 * n] = MIX(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30);
    x[2 * n + 1] = MIX(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31);
  }
}

// Over the lanes of one vector.
template <class Join>
inline float joined(Lanes x, Join join) {
  x = join(x, MIX(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
  x = join(x, MIX(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
  x = join(x, MIX(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
  return join(x, MIX(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14))[0];
}
inline float largest_of(Lanes x) { return joined(x, [](Lanes a, Lanes b) { return a > b ? a : b; }); }
inline float sum_of(Lanes x) { return joined(x, [](Lanes a, Lanes b) { return a + b; }); }

inline float from_fp16(uint16_t x) {
#if defined(__F16C__)
  return _cvtsh_ss(x);
#else
  uint32_t sign = uint32_t(x & 0x8000) << 16, exponent = (x >> 10) & 31, mantissa = x & 1023;
  if (exponent == 0) return (sign ? -1.0f : 1.0f) * float(mantissa) * 0x1p-24f;
  uint32_t bits = sign | ((exponent + 112) << 23) | (mantissa << 13);
  float y;
  std::memcpy(&y, &bits, 4);
  return y;
#endif
}

// exp for x <= 88, within 2 ulp; a plain expression, so that loops over it become vector code.
inline float exp_(float x) {
  x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
  float t = x * 1.44269504f;
  float n = float(int(t + (t < 0 ? -0.5f : 0.5f)));
  float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  int32_t bits = (int32_t(n) + 127) << 23;
  float scale;
  std::memcpy(&scale, &bits, 4);
  return p * scale;
}

typedef int32_t Ints __attribute__((vector_size(64)));

// As many floats as a register holds: of wider vectors, compilers choose and convert one lane at a time.
#if defined(__AVX512F__)
constexpr int kVector = 16;
#elif defined(__AVX2__)
constexpr int kVector = 8;
#else
constexpr int kVector = 4;
#endif
typedef float Vec __attribute__((vector_size(4 * kVector)));
typedef int32_t VecInts __attribute__((vector_size(4 * kVector)));

inline Vec vec(const float* from) {
  Vec x;
  std::memcpy(&x, from, sizeof(x));
  return x;
}
inline Vec larger(Vec a, Vec b) { return a > b ? a : b; }
inline VecInts nearest(Vec x) {  // halves away from zero
  return __builtin_convertvector(x + (x < 0.0f ? Vec{} - 0.5f : Vec{} + 0.5f), VecInts);
}

// As exp_, a register at a time.
inline Vec exps(Vec x) {
  x = larger(x, Vec{} - 87.0f);
  const VecInts whole = nearest(x * 1.44269504f);
  const Vec n = __builtin_convertvector(whole, Vec);
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec p = 1.9875691500e-4f * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * (Vec)((whole + 127) << 23);
}

#if !defined(__AVX512F__)
inline Lanes exps(Lanes x) {
  Vec part[16 / kVector];
  std::memcpy(part, &x, sizeof(x));
  for (Vec& one : part) one = exps(one);
  std::memcpy(&x, part, sizeof(x));
  return x;
}
#endif

inline float largest_of(const float* x, int n) {
  float most = x[0];
  for (int i = 1; i < n; i++) most = x[i] > most ? x[i] : most;
  return most;
}

// A group of floats as int8, by its largest; the sum of what they became.
inline int32_t quantised(const float* x, int8_t* q, float* scale) {
  constexpr int kParts = kGroup / kVector;
  Vec v[kParts], most = {};
  for (int i = 0; i < kParts; i++) {
    v[i] = vec(x + i * kVector);
    most = larger(most, larger(v[i], -v[i]));
  }
  float all[kVector];
  std::memcpy(all, &most, sizeof(most));
  const float largest = largest_of(all, kVector), inverse = largest > 0 ? 127.0f / largest : 0.0f;
  VecInts steps[kParts], total = {};
  for (int i = 0; i < kParts; i++) total += steps[i] = nearest(v[i] * inverse);
#if defined(__AVX2__) && !defined(__AVX512F__)
  const __m256i pairs[2] = {_mm256_packs_epi32((__m256i)steps[0], (__m256i)steps[1]),
                            _mm256_packs_epi32((__m256i)steps[2], (__m256i)steps[3])};
  const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
  const __m256i bytes = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(pairs[0], pairs[1]), order);
  _mm256_storeu_si256((__m256i*)q, bytes);
#else
  typedef int8_t Small __attribute__((vector_size(kVector)));
  for (int i = 0; i < kParts; i++) {
    const Small small = __builtin_convertvector(steps[i], Small);
    std::memcpy(q + i * kVector, &small, sizeof(small));
  }
#endif
  *scale = largest / 127.0f;
  int32_t sum = 0;
  for (int i = 0; i < kVector; i++) sum += total[i];
  return sum;
}

}  // namespace
