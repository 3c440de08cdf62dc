// A block of 16 rows times a few tokens, weights read once for up to eight of them.
#pragma once

#include <utility>

#include "numbers.h"

namespace {

// The tokens of a step as a product's right side: int8 with a scale a group, or float.
struct Tokens {
  Vector<int8_t> q;
  Vector<float> scale, x;
  Vector<int32_t> offset;  // what the weights' unsigned storage adds, negated
  int columns = 0;              // padded

  void reserve(int widest, int tokens, bool quantised) {
    size_t n = size_t(padded(widest, kDeep)) * tokens;
    if (quantised) {
      q.assign(n, 0), scale.assign(n / kGroup, 0), offset.assign(n / kGroup, 0);
    }
    x.assign(n, 0);
  }
};

// Rows `first` to `last` (in blocks of 16) of weights times tokens; out(block, token, 16 values).

#if defined(__AVX512VNNI__) && defined(__AVX512F__) && defined(__AVX512BW__)
template <int kBits, int M>
inline void block_int(const uint8_t* w, const Tokens& a, int t0, float (*out)[kRows]) {
  const int supers = a.columns / kDeep, groups = a.columns / kGroup;
  const int8_t* q = a.q.data() + size_t(t0) * a.columns;
  const float* s = a.scale.data() + size_t(t0) * groups;
  const int32_t* o = a.offset.data() + size_t(t0) * groups;
  __m512 sum[M];
  for (int t = 0; t < M; t++) sum[t] = _mm512_setzero_ps();
  const __m512i low = _mm512_set1_epi8(15);
  for (int b = 0; b < supers; b++) {
    __m512i acc0[M], acc1[M];
    for (int t = 0; t < M; t++) {
      acc0[t] = _mm512_set1_epi32(o[t * groups + 2 * b]);
      acc1[t] = _mm512_set1_epi32(o[t * groups + 2 * b + 1]);
    }
    const __m512 d0 = _mm512_cvtph_ps(_mm256_load_si256((const __m256i*)w));
    const __m512 d1 = _mm512_cvtph_ps(_mm256_load_si256((const __m256i*)(w + 32)));
    const uint8_t* v = w + 64;
#pragma GCC unroll 8
    for (int j = 0; j < 8; j++) {
      __m512i w0, w1;
      if (kBits == 8) {
        w0 = _mm512_load_si512(v + 64 * j), w1 = _mm512_load_si512(v + 512 + 64 * j);
      } else {
        const __m512i both = _mm512_load_si512(v + 64 * j);
        w0 = _mm512_and_si512(both, low), w1 = _mm512_and_si512(_mm512_srli_epi16(both, 4), low);
      }
      for (int t = 0; t < M; t++) {
        int32_t a0, a1;
        std::memcpy(&a0, q + size_t(t) * a.columns + b * kDeep + 4 * j, 4);
        std::memcpy(&a1, q + size_t(t) * a.columns + b * kDeep + kGroup + 4 * j, 4);
        acc0[t] = _mm512_dpbusd_epi32(acc0[t], w0, _mm512_set1_epi32(a0));
        acc1[t] = _mm512_dpbusd_epi32(acc1[t], w1, _mm512_set1_epi32(a1));
      }
    }
    for (int t = 0; t < M; t++) {
      const __m512 s0 = _mm512_mul_ps(d0, _mm512_set1_ps(s[t * groups + 2 * b]));
      const __m512 s1 = _mm512_mul_ps(d1, _mm512_set1_ps(s[t * groups + 2 * b + 1]));
      sum[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc0[t]), s0, sum[t]);
      sum[t] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(acc1[t]), s1, sum[t]);
    }
    w += 64 + kDeep * kRows * kBits / 8;
  }
  for (int t = 0; t < M; t++) _mm512_storeu_ps(out[t], sum[t]);
}
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
// f(0), f(1), ... f(N - 1) in a row, as constants: arrays that loops index stay in memory.
template <int N, class F>
inline void each(F f) {
  [&]<int... i>(std::integer_sequence<int, i...>) {
    (f(std::integral_constant<int, i>{}), ...);
  }(std::make_integer_sequence<int, N>{});
}

// Of 4 bits, eight sums of two products (at most 15 * 127 each) fit 16 bits, and are widened once a group. Of 8, the
// weights' signs move to the tokens, so that products are of unsigned and signed bytes and two fit 16 bits.
template <int kBits, int M>
inline void block_int(const uint8_t* w, const Tokens& a, int t0, float (*out)[kRows]) {
  constexpr int kHalves = M > 2 ? 1 : 2;  // of sixteen rows at once, as registers allow
  const int supers = a.columns / kDeep, groups = a.columns / kGroup;
  const size_t columns = a.columns, size = 64 + kDeep * kRows * kBits / 8;
  const __m256i low = _mm256_set1_epi8(15), top = _mm256_set1_epi8(-128), ones = _mm256_set1_epi16(1);
  for (int h0 = 0; h0 < 2; h0 += kHalves) {
    __m256 sum[M * kHalves];
    each<M * kHalves>([&](auto i) { sum[i] = _mm256_setzero_ps(); });
    for (int b = 0; b < supers; b++) {
      const uint8_t* block = w + size * b;
      if (h0 + kHalves == 2)  // the next sixteen rows come from memory meanwhile
        for (size_t i = 0; i < size; i += 64) __builtin_prefetch(block + size * supers + i);
      for (int g = 0; g < 2; g++) {
        const int8_t* q = a.q.data() + t0 * columns + b * kDeep + g * kGroup;
        const uint8_t* at = block + 64 + (kBits == 8 ? 512 * g : 0) + 32 * h0;
        __m256i acc[M * kHalves];
        each<M * kHalves>([&](auto i) { acc[i] = _mm256_setzero_si256(); });
#pragma GCC unroll 1
        for (int j = 0; j < 8; j++, at += 64, q += 4) {
          __m256i weights[kHalves], size_of[kHalves];
          each<kHalves>([&](auto h) {
            const __m256i v = _mm256_load_si256((const __m256i*)(at + 32 * h));
            weights[h] = kBits == 8 ? _mm256_xor_si256(v, top) : _mm256_and_si256(g ? _mm256_srli_epi16(v, 4) : v, low);
            size_of[h] = _mm256_abs_epi8(weights[h]);
          });
          each<M>([&](auto t) {
            int32_t four;
            std::memcpy(&four, q + t * columns, 4);
            const __m256i token = _mm256_set1_epi32(four);
            each<kHalves>([&](auto h) {
              constexpr int i = t * kHalves + h;
              if constexpr (kBits == 4) {
                acc[i] = _mm256_add_epi16(acc[i], _mm256_maddubs_epi16(weights[h], token));
              } else {
                const __m256i two = _mm256_maddubs_epi16(size_of[h], _mm256_sign_epi8(token, weights[h]));
                acc[i] = _mm256_add_epi32(acc[i], _mm256_madd_epi16(two, ones));
              }
            });
          });
        }
        each<kHalves>([&](auto h) {
          const __m256 scale = _mm256_cvtph_ps(_mm_load_si128((const __m128i*)(block + 32 * g + 16 * (h0 + h))));
          each<M>([&](auto t) {
            constexpr int i = t * kHalves + h;
            const size_t group = size_t(t0 + t) * groups + 2 * b + g;
            if (kBits == 4)
              acc[i] = _mm256_add_epi32(_mm256_madd_epi16(acc[i], ones), _mm256_set1_epi32(a.offset[group]));
            const __m256 both = _mm256_mul_ps(scale, _mm256_set1_ps(a.scale[group]));
            sum[i] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[i]), both, sum[i]);
          });
        });
      }
    }
    each<M>([&](auto t) {
      each<kHalves>([&](auto h) { _mm256_storeu_ps(out[t] + 8 * (h0 + h), sum[t * kHalves + h]); });
    });
  }
}
#else
template <int kBits, int M>
inline void block_int(const uint8_t* w, const Tokens& a, int t0, float (*out)[kRows]) {
  const int supers = a.columns / kDeep, groups = a.columns / kGroup;
  const size_t size = 64 + kDeep * kRows * kBits / 8;
  std::memset(out, 0, sizeof(float) * M * kRows);
  for (int b = 0; b < supers; b++) {
    const uint8_t* block = w + size * b;
    for (int t = 0; t < M; t++)
      for (int g = 0; g < 2; g++) {
        int32_t acc[kRows];
        for (int r = 0; r < kRows; r++) acc[r] = a.offset[size_t(t0 + t) * groups + 2 * b + g];
        const int8_t* q = a.q.data() + size_t(t0 + t) * a.columns + b * kDeep + g * kGroup;
        for (int k = 0; k < kGroup; k++)
          for (int r = 0; r < kRows; r++) {
            const int at = 64 * (k / 4) + 4 * r + k % 4;
            const int v = kBits == 8 ? block[64 + 512 * g + at] : (block[64 + at] >> (4 * g)) & 15;
            acc[r] += v * q[k];
          }
        for (int r = 0; r < kRows; r++) {
          uint16_t d;
          std::memcpy(&d, block + 32 * g + 2 * r, 2);
          out[t][r] += float(acc[r]) * (from_fp16(d) * a.scale[size_t(t0 + t) * groups + 2 * b + g]);
        }
      }
  }
}
#endif

// bfloat16 weights times float tokens: a 32-bit lane holds columns 2j (low) and 2j + 1 (high) of its row.
#if defined(__AVX2__) && defined(__FMA__) && !defined(__AVX512F__)
template <int M>
inline void block_bf16(const uint8_t* w, const Tokens& a, int t0, float (*out)[kRows]) {
  if constexpr (M > 4) {  // in as many registers as there are
    block_bf16<4>(w, a, t0, out);
    block_bf16<M - 4>(w, a, t0 + 4, out + 4);
  } else {
    constexpr int kHalves = M > 2 ? 1 : 2;  // of sixteen rows at once
    const float* x = a.x.data() + size_t(t0) * a.columns;
    const __m256i high = _mm256_set1_epi32(0xffff0000);
    for (int h0 = 0; h0 < 2; h0 += kHalves) {
      __m256 even[M][kHalves], odd[M][kHalves];
      for (int t = 0; t < M; t++)
        for (int h = 0; h < kHalves; h++) even[t][h] = odd[t][h] = _mm256_setzero_ps();
      const uint8_t* at = w + 32 * h0;
      for (int k = 0; k < a.columns; k += 2, at += 64)
        for (int h = 0; h < kHalves; h++) {
          const __m256i both = _mm256_load_si256((const __m256i*)(at + 32 * h));
          const __m256 left = _mm256_castsi256_ps(_mm256_slli_epi32(both, 16));
          const __m256 right = _mm256_castsi256_ps(_mm256_and_si256(both, high));
          for (int t = 0; t < M; t++) {
            const float* token = x + size_t(t) * a.columns + k;
            even[t][h] = _mm256_fmadd_ps(left, _mm256_broadcast_ss(token), even[t][h]);
            odd[t][h] = _mm256_fmadd_ps(right, _mm256_broadcast_ss(token + 1), odd[t][h]);
          }
        }
      for (int t = 0; t < M; t++)
        for (int h = 0; h < kHalves; h++)
          _mm256_storeu_ps(out[t] + 8 * (h0 + h), _mm256_add_ps(even[t][h], odd[t][h]));
    }
  }
}
#else
template <int M>
inline void block_bf16(const uint8_t* w, const Tokens& a, int t0, float (*out)[kRows]) {
  Lanes sum[M][2] = {};
  const float* x = a.x.data() + size_t(t0) * a.columns;
  for (int k = 0; k < a.columns; k += 2, w += 64) {
    const Bits both = *(const Bits*)w;
    const Lanes even = (Lanes)(both << 16), odd = (Lanes)(both & 0xffff0000u);
    for (int t = 0; t < M; t++) {
      const float* at = x + size_t(t) * a.columns + k;
      sum[t][0] += even * at[0];
      sum[t][1] += odd * at[1];
    }
  }
  for (int t = 0; t < M; t++) {
    const Lanes total = sum[t][0] + sum[t][1];
    std::memcpy(out[t], &total, 64);
  }
}
#endif

using Block = void (*)(const uint8_t*, const Tokens&, int, float (*)[kRows]);

template <int M>
Block block_of(int bits) {
  return bits == 16 ? block_bf16<M> : bits == 8 ? block_int<8, M> : block_int<4, M>;
}

}  // namespace
