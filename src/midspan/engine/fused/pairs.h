// A tile of bfloat16 keys and values against the few queries that share them, two products at a time.
//
// AVX512-BF16 multiplies pairs of bfloat16 and adds both products to a float: no key is widened, which is most of the
// work otherwise. Queries and the exponentials of scores are rounded to bfloat16 for it, as torch rounds them.
#pragma once
#include <type_traits>

#include "numbers.h"

namespace {

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
constexpr bool kHasPairs = true;

inline __m512bh halves_of(const float* x) { return _mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x)); }
inline __m512i key_at(const uint16_t* x) { return _mm512_loadu_si512(x); }

// scores[g][j] = query g times key j, scaled; up to the next multiple of 16 keys.
template <int kDim>
inline void scores_by_pairs(const uint16_t* k, int tile, int groups, const float* queries, float scale, float* scores) {
  constexpr int kParts = kDim / 32;
  for (int g = 0; g < groups; g++) {
    __m512bh q[kParts];
    for (int i = 0; i < kParts; i++) q[i] = halves_of(queries + g * kDim + 32 * i);
    for (int j0 = 0; j0 < tile; j0 += 16) {
      const int keys = tile - j0 < 16 ? tile - j0 : 16;
      Lanes dots[16] = {};
      for (int j = 0; j < keys; j++) {
        __m512 sum = _mm512_setzero_ps();
        for (int i = 0; i < kParts; i++)
          sum = _mm512_dpbf16_ps(sum, (__m512bh)key_at(k + size_t(j0 + j) * kDim + 32 * i), q[i]);
        dots[j] = (Lanes)sum;
      }
      const Lanes all = sums(dots) * scale;
      std::memcpy(scores + g * kTile + j0, &all, sizeof(all));
    }
  }
}

// y[g] = kept * y[g] + the sum over keys of scores[g][j] * v[j]; `kGroups` queries from the first on.
template <int kDim, int kGroups>
inline void values_by_pairs(const uint16_t* v, int tile, const float* scores, const float* kept, float* y, int stride) {
  constexpr int kParts = kDim / 32;
  alignas(64) uint32_t weights[kGroups][kTile / 2];  // of two keys each
  __m512 sum[kGroups][2 * kParts];
  for (int g = 0; g < kGroups; g++) {
    for (int j = 0; j < tile; j += 32) {
      const bool whole = j + 16 < tile;
      const __m512 low = _mm512_loadu_ps(scores + g * kTile + j);
      const __m512 high = whole ? _mm512_loadu_ps(scores + g * kTile + j + 16) : _mm512_setzero_ps();
      _mm512_store_si512(weights[g] + j / 2, (__m512i)_mm512_cvtne2ps_pbh(high, low));
    }
    for (int i = 0; i < 2 * kParts; i++)
      sum[g][i] = _mm512_mul_ps(_mm512_loadu_ps(y + size_t(g) * stride + 16 * i), _mm512_set1_ps(kept[g]));
  }
  for (int j = 0; j < tile; j += 2)
    for (int i = 0; i < kParts; i++) {
      const Words one = (Words)key_at(v + size_t(j) * kDim + 32 * i);
      const Words other = j + 1 < tile ? (Words)key_at(v + size_t(j + 1) * kDim + 32 * i) : Words{};
      const __m512bh pairs[2] = {(__m512bh)first_halves(one, other), (__m512bh)second_halves(one, other)};
      for (int g = 0; g < kGroups; g++) {
        const __m512bh weight = (__m512bh)_mm512_set1_epi32(int(weights[g][j / 2]));
        sum[g][2 * i] = _mm512_dpbf16_ps(sum[g][2 * i], pairs[0], weight);
        sum[g][2 * i + 1] = _mm512_dpbf16_ps(sum[g][2 * i + 1], pairs[1], weight);
      }
    }
  for (int g = 0; g < kGroups; g++)
    for (int i = 0; i < 2 * kParts; i++) _mm512_storeu_ps(y + size_t(g) * stride + 16 * i, sum[g][i]);
}
#else
constexpr bool kHasPairs = false;

template <int kDim>
inline void scores_by_pairs(const uint16_t*, int, int, const float*, float, float*) {}
template <int kDim, int kGroups>
inline void values_by_pairs(const uint16_t*, int, const float*, const float*, float*, int) {}
#endif

// As many queries at a time as sums fit the registers.
template <int kDim>
inline void values_by_pairs(const uint16_t* v, int tile, int groups, const float* scores, const float* kept, float* y, int stride) {
  constexpr int kMost = kDim <= 64 ? 4 : 2;
  int g = 0;
  const auto next = [&](auto count) {
    constexpr int kCount = decltype(count)::value;
    while (groups - g >= kCount) {
      values_by_pairs<kDim, kCount>(v, tile, scores + g * kTile, kept + g, y + size_t(g) * stride, stride);
      g += kCount;
    }
  };
  if constexpr (kMost == 4) next(std::integral_constant<int, 4>{}), next(std::integral_constant<int, 3>{});
  next(std::integral_constant<int, 2>{});
  next(std::integral_constant<int, 1>{});
}

}  // namespace
