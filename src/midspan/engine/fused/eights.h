// A tile of keys and values against the few queries that share them, eight floats at a time.
//
// For AVX2, where compilers keep sixteen floats in memory rather than in two registers. Each key and value is widened
// once for all queries.
#pragma once
#include "numbers.h"

namespace {

#if defined(__AVX2__) && defined(__FMA__) && !defined(__AVX512F__)
constexpr bool kHasEights = true;

inline __m256 eight(const float* x) { return _mm256_loadu_ps(x); }
inline __m256 eight(const uint16_t* x) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)x));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

// Lane i is the sum of the lanes of x[i].
inline __m256 sums_of_eights(const __m256* x) {
  const __m256 a = _mm256_hadd_ps(_mm256_hadd_ps(x[0], x[1]), _mm256_hadd_ps(x[2], x[3]));
  const __m256 b = _mm256_hadd_ps(_mm256_hadd_ps(x[4], x[5]), _mm256_hadd_ps(x[6], x[7]));
  return _mm256_add_ps(_mm256_permute2f128_ps(a, b, 0x20), _mm256_permute2f128_ps(a, b, 0x31));
}

// scores[g][j] = query g times key j, scaled, of `kGroups` queries; up to the next multiple of 8 keys.
template <int kDim, int kGroups, class Number>
inline void scores_of(const Number* k, int tile, const float* queries, float scale, float* scores) {
  for (int j0 = 0; j0 < tile; j0 += 8) {
    const int keys = tile - j0 < 8 ? tile - j0 : 8;
    __m256 dots[kGroups][8];
    for (int j = 0; j < 8; j += 2) {  // never behind the tile's last key
      const Number* key = k + size_t(j0 + (j < keys ? j : 0)) * kDim;
      const Number* next = k + size_t(j0 + (j + 1 < keys ? j + 1 : 0)) * kDim;
      __m256 sum[kGroups][2];
      for (int g = 0; g < kGroups; g++) sum[g][0] = sum[g][1] = _mm256_setzero_ps();
#pragma GCC unroll 16
      for (int i = 0; i < kDim; i += 8) {
        const __m256 part[2] = {eight(key + i), eight(next + i)};
        for (int g = 0; g < kGroups; g++) {
          const __m256 query = _mm256_loadu_ps(queries + g * kDim + i);
          sum[g][0] = _mm256_fmadd_ps(part[0], query, sum[g][0]);
          sum[g][1] = _mm256_fmadd_ps(part[1], query, sum[g][1]);
        }
      }
      for (int g = 0; g < kGroups; g++) dots[g][j] = sum[g][0], dots[g][j + 1] = sum[g][1];
    }
    for (int g = 0; g < kGroups; g++)
      _mm256_storeu_ps(scores + g * kTile + j0, _mm256_mul_ps(sums_of_eights(dots[g]), _mm256_set1_ps(scale)));
  }
}

// The next of 8 * kParts columns: y[g] = kept[g] * y[g] + the sum over keys of scores[g][j] * v[j].
template <int kDim, int kGroups, int kParts, class Number>
inline void columns_of(const Number* v, int tile, const float* scores, const float* kept, float* y, int stride) {
  __m256 sum[kGroups][kParts];
  for (int g = 0; g < kGroups; g++)
    for (int i = 0; i < kParts; i++)
      sum[g][i] = _mm256_mul_ps(_mm256_loadu_ps(y + g * stride + 8 * i), _mm256_set1_ps(kept[g]));
  for (int j = 0; j < tile; j++)
#pragma GCC unroll 4
    for (int i = 0; i < kParts; i++) {
      const __m256 part = eight(v + size_t(j) * kDim + 8 * i);
      for (int g = 0; g < kGroups; g++)
        sum[g][i] = _mm256_fmadd_ps(part, _mm256_broadcast_ss(scores + g * kTile + j), sum[g][i]);
    }
  for (int g = 0; g < kGroups; g++)
    for (int i = 0; i < kParts; i++) _mm256_storeu_ps(y + g * stride + 8 * i, sum[g][i]);
}

// All columns of `kGroups` queries, as many at a time as registers hold.
template <int kDim, int kGroups, class Number>
inline void values_of(const Number* v, int tile, const float* scores, const float* kept, float* y, int stride) {
  constexpr int kLeft = kDim % 32;
  for (int i = 0; i + 32 <= kDim; i += 32) columns_of<kDim, kGroups, 4>(v + i, tile, scores, kept, y + i, stride);
  if constexpr (kLeft > 0)
    columns_of<kDim, kGroups, kLeft / 8>(v + kDim - kLeft, tile, scores, kept, y + kDim - kLeft, stride);
}

template <int kDim, class Number>
inline void scores_by_eights(const Number* k, int tile, int groups, const float* queries, float scale, float* scores) {
  for (int g = 0; g < groups; g += 3) {
    const float* q = queries + g * kDim;
    float* to = scores + g * kTile;
    if (groups - g >= 3) scores_of<kDim, 3>(k, tile, q, scale, to);
    else if (groups - g == 2) scores_of<kDim, 2>(k, tile, q, scale, to);
    else scores_of<kDim, 1>(k, tile, q, scale, to);
  }
}

template <int kDim, class Number>
inline void values_by_eights(const Number* v, int tile, int groups, const float* scores, const float* kept, float* y,
                             int stride) {
  for (int g = 0; g < groups; g += 3) {
    const float* s = scores + g * kTile;
    float* to = y + size_t(g) * stride;
    if (groups - g >= 3) values_of<kDim, 3>(v, tile, s, kept + g, to, stride);
    else if (groups - g == 2) values_of<kDim, 2>(v, tile, s, kept + g, to, stride);
    else values_of<kDim, 1>(v, tile, s, kept + g, to, stride);
  }
}
#else
constexpr bool kHasEights = false;

template <int kDim, class Number>
inline void scores_by_eights(const Number*, int, int, const float*, float, float*) {}
template <int kDim, class Number>
inline void values_by_eights(const Number*, int, int, const float*, const float*, float*, int) {}
#endif

}  // namespace
