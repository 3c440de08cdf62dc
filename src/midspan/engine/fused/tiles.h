// Many tokens at once: weights become bfloat16 a panel at a time, and products are 32 tokens by 32 rows.
//
// A block of 16-bit weights (columns 2j and 2j + 1 of 16 rows in a register) is what both AMX and AVX512-BF16 take
// as their right side, so blocks of 8 and 4 bits are unpacked into that and read once for all tokens.
#pragma once
#include "numbers.h"
#if defined(__AMX_BF16__)
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

#if defined(__AMX_BF16__) || (defined(__AVX512BF16__) && defined(__AVX512F__))
constexpr bool kHasTiles = true;
#else
constexpr bool kHasTiles = false;
#endif

#if defined(__AMX_BF16__)
constexpr bool kHasAmx = true;
#else
constexpr bool kHasAmx = false;
#endif

typedef float Tile[32][2][kRows];  // tokens, blocks, rows
typedef float Few[16][4][kRows];

// A thread asks for its tile registers before its first product, and gives them up after its last.
inline bool tiles_begin() {
#if defined(__AMX_BF16__)
  static const bool allowed = syscall(SYS_arch_prctl, 0x1023, 18) == 0;  // ARCH_REQ_XCOMP_PERM, tile data
  if (!allowed) return false;
  alignas(64) struct {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
  } config;
  asm volatile("" ::"r"(&config) : "memory");  // GCC 12 does not see that the next line reads all of it
  _tile_loadconfig(&config);
#endif
  return kHasTiles;
}

inline void tiles_end() {
#if defined(__AMX_BF16__)
  _tile_release();
#endif
}

// 32 tokens (rows of x, `stride` apart) times two blocks of `columns`, a multiple of 32.
inline void tile(const uint16_t* x, size_t stride, const uint16_t* w0, const uint16_t* w1, int columns, Tile c) {
#if defined(__AMX_BF16__)
  asm volatile("" ::: "memory");
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int k = 0; k < columns; k += 32) {
    _tile_loadd(0, x + k, stride * 2);
    _tile_loadd(2, w0 + k * kRows, 64);
    _tile_loadd(3, w1 + k * kRows, 64);
    _tile_loadd(1, x + 16 * stride + k, stride * 2);
    _tile_dpbf16ps(4, 0, 2);
    _tile_dpbf16ps(5, 0, 3);
    _tile_dpbf16ps(6, 1, 2);
    _tile_dpbf16ps(7, 1, 3);
  }
  _tile_stored(4, c[0][0], 128);
  _tile_stored(5, c[0][1], 128);
  _tile_stored(6, c[16][0], 128);
  _tile_stored(7, c[16][1], 128);
  asm volatile("" ::: "memory");
#elif defined(__AVX512BF16__) && defined(__AVX512F__)
  for (int t0 = 0; t0 < 32; t0 += 8) {
    __m512 sum[8][2];
    for (int t = 0; t < 8; t++) sum[t][0] = sum[t][1] = _mm512_setzero_ps();
    for (int k = 0; k < columns; k += 2) {
      const __m512bh a = (__m512bh)_mm512_load_si512(w0 + k * kRows), b = (__m512bh)_mm512_load_si512(w1 + k * kRows);
      for (int t = 0; t < 8; t++) {
        int32_t pair;
        std::memcpy(&pair, x + size_t(t0 + t) * stride + k, 4);
        const __m512bh both = (__m512bh)_mm512_set1_epi32(pair);
        sum[t][0] = _mm512_dpbf16_ps(sum[t][0], a, both);
        sum[t][1] = _mm512_dpbf16_ps(sum[t][1], b, both);
      }
    }
    for (int t = 0; t < 8; t++)
      for (int i = 0; i < 2; i++) _mm512_storeu_ps(c[t0 + t][i], sum[t][i]);
  }
#else
  (void)x, (void)stride, (void)w0, (void)w1, (void)columns, (void)c;
#endif
}

// 16 tokens times `kBlocks` blocks (two or four, `apart` from each other), where there are AMX's tiles.
template <int kBlocks>
inline void few(const uint16_t* x, size_t stride, const uint16_t* w, size_t apart, int columns, Few c) {
#if defined(__AMX_BF16__)
  asm volatile("" ::: "memory");
  _tile_zero(4);
  _tile_zero(5);
  _tile_zero(6);
  _tile_zero(7);
  for (int k = 0; k < columns; k += 32) {
    _tile_loadd(0, x + k, stride * 2);
    _tile_loadd(1, w + k * kRows, 64);
    _tile_loadd(2, w + apart + k * kRows, 64);
    _tile_dpbf16ps(4, 0, 1);
    _tile_dpbf16ps(5, 0, 2);
    if (kBlocks < 4) continue;
    _tile_loadd(1, w + 2 * apart + k * kRows, 64);
    _tile_loadd(2, w + 3 * apart + k * kRows, 64);
    _tile_dpbf16ps(6, 0, 1);
    _tile_dpbf16ps(7, 0, 2);
  }
  _tile_stored(4, c[0][0], 256);
  _tile_stored(5, c[0][1], 256);
  _tile_stored(6, c[0][2], 256);
  _tile_stored(7, c[0][3], 256);
  asm volatile("" ::: "memory");
#else
  (void)x, (void)stride, (void)w, (void)apart, (void)columns, (void)c;
#endif
}

// Two columns of 16 rows as bfloat16, the first in the low halves.
inline Bits halves(Lanes first, Lanes second) {
  return (((Bits)first + 0x8000u) >> 16) | (((Bits)second + 0x8000u) & 0xffff0000u);
}

// Blocks of 8 or 4 bits as blocks of bfloat16.
inline void unpack(const uint8_t* from, int bits, int blocks, uint16_t* to) {
  for (int b = 0; b < blocks; b++, to += kRows * kDeep) {
    Lanes scale[2];
    for (int g = 0; g < 2; g++)
      for (int r = 0; r < kRows; r++) {
        uint16_t d;
        std::memcpy(&d, from + 32 * g + 2 * r, 2);
        scale[g][r] = from_fp16(d);
      }
    from += 64;
    for (int j = 0; j < 8; j++) {
      Bits v[2];
      std::memcpy(&v[0], from + 64 * j, 64);
      if (bits == 8) std::memcpy(&v[1], from + 512 + 64 * j, 64);
      else v[1] = v[0] >> 4;
      for (int g = 0; g < 2; g++)
        for (int p = 0; p < 2; p++) {
          const Bits mask = Bits{} + (bits == 8 ? 255u : 15u);
          const float zero = bits == 8 ? 128.0f : 8.0f;
          const Lanes first = __builtin_convertvector((Ints)((v[g] >> (16 * p)) & mask), Lanes) - zero;
          const Lanes second = __builtin_convertvector((Ints)((v[g] >> (16 * p + 8)) & mask), Lanes) - zero;
          const Bits pair = halves(first * scale[g], second * scale[g]);
          std::memcpy(to + (g * kGroup + 4 * j + 2 * p) * kRows, &pair, 64);
        }
    }
    from += kRows * kDeep * bits / 8;
  }
}

}  // namespace
