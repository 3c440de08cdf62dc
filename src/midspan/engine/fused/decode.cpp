// One step of a Llama: a few tokens of a few sequences in, logits out, weights read once.
//
// Compiled by the user's own compiler for the user's own processor (see library.py), so instructions are chosen
// by the compiler's macros. Python holds all memory but scratch; its layouts are described in model/quant.py
// (weights) and model/cache.py (keys and values).
//
//   every thread            norm and int8 of the step's tokens, for itself: cheaper than waiting for another
//   rows of QKV             | barrier
//   its share of the keys   rotates queries for itself, writes the new keys that fall in its share | barrier
//   rows of O               joins the shares of softmax first | barrier
//   rows of gate and up     silu(gate) * up where both are in hand | barrier
//   rows of down            | barrier
//
// Threads stay for the decoder's life, spin between stages, and sleep between steps once a while has passed.
// A thread's rows and keys depend on sizes alone, so the same call gives the same bits.
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <thread>
#include <vector>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace {

constexpr int kRows = 16;     // rows that stand side by side in a block of weights
constexpr int kDeep = 64;     // columns of a block
constexpr int kGroup = 32;    // columns that share a scale
constexpr int kTokens = 8;    // tokens that share one reading of a block from memory to registers
constexpr int kMaxTokens = 64;
constexpr int kTile = 64;     // keys between two rescalings of the softmax

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

struct Shape {
  int32_t layers, hidden, inner, heads, kv_heads, head_dim, vocab, bits, threads;
  float eps;
};

struct Layer {
  const uint8_t *qkv, *out, *gate_up, *down;
  const float *qkv_bias, *out_bias, *norm1, *norm2;
};

struct Cache {  // memory (layers, 2, slots, kv heads, capacity, head_dim), strides in elements
  void* memory;
  int64_t layer, kind, slot, head;
  int32_t is_bf16;
};

struct Span {  // `count` consecutive tokens of one sequence, the first at position `start`
  int32_t slot, start, count;
};

// The tokens of a step as a product's right side: int8 with a scale a group, or float.
struct Tokens {
  std::vector<int8_t> q;
  std::vector<float> scale, x;
  std::vector<int32_t> offset;  // what the weights' unsigned storage adds, negated
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
// Eight int32 of u8 times s8, four products each. |w| <= 127 beside a's sign keeps the 16-bit sums from saturating.
template <int kBits>
inline __m256i dot_(__m256i acc, __m256i w, __m256i a) {
  const __m256i ones = _mm256_set1_epi16(1);
  if (kBits == 8) {
    w = _mm256_xor_si256(w, _mm256_set1_epi8(-128));
    a = _mm256_sign_epi8(a, w), w = _mm256_abs_epi8(w);
  }
  return _mm256_add_epi32(acc, _mm256_madd_epi16(_mm256_maddubs_epi16(w, a), ones));
}

template <int kBits, int M>
inline void block_int(const uint8_t* w, const Tokens& a, int t0, float (*out)[kRows]) {
  const int supers = a.columns / kDeep, groups = a.columns / kGroup;
  const __m256i low = _mm256_set1_epi8(15);
  const size_t size = 64 + kDeep * kRows * kBits / 8;
  for (int half = 0; half < 2; half++) {
    __m256 sum[M];
    for (int t = 0; t < M; t++) sum[t] = _mm256_setzero_ps();
    for (int b = 0; b < supers; b++) {
      const uint8_t* block = w + size * b;
      const __m256 d[2] = {_mm256_cvtph_ps(_mm_load_si128((const __m128i*)(block + 16 * half))),
                           _mm256_cvtph_ps(_mm_load_si128((const __m128i*)(block + 32 + 16 * half)))};
      for (int g = 0; g < 2; g++) {
        __m256i acc[M];
        for (int t = 0; t < M; t++)
          acc[t] = _mm256_set1_epi32(kBits == 8 ? 0 : a.offset[size_t(t0 + t) * groups + 2 * b + g]);
        for (int j = 0; j < 8; j++) {
          const uint8_t* at = block + 64 + 64 * j + 32 * half + (kBits == 8 ? 512 * g : 0);
          __m256i v = _mm256_load_si256((const __m256i*)at);
          if (kBits == 4) v = _mm256_and_si256(g ? _mm256_srli_epi16(v, 4) : v, low);
          for (int t = 0; t < M; t++) {
            int32_t four;
            std::memcpy(&four, a.q.data() + size_t(t0 + t) * a.columns + b * kDeep + g * kGroup + 4 * j, 4);
            acc[t] = dot_<kBits>(acc[t], v, _mm256_set1_epi32(four));
          }
        }
        for (int t = 0; t < M; t++) {
          const __m256 s = _mm256_mul_ps(d[g], _mm256_set1_ps(a.scale[size_t(t0 + t) * groups + 2 * b + g]));
          sum[t] = _mm256_fmadd_ps(_mm256_cvtepi32_ps(acc[t]), s, sum[t]);
        }
      }
    }
    for (int t = 0; t < M; t++) _mm256_storeu_ps(out[t] + 8 * half, sum[t]);
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

using Block = void (*)(const uint8_t*, const Tokens&, int, float (*)[kRows]);

template <int M>
Block block_of(int bits) {
  return bits == 16 ? block_bf16<M> : bits == 8 ? block_int<8, M> : block_int<4, M>;
}

struct Decoder {
  Shape shape;
  std::vector<Layer> layers;
  const uint16_t* embedding;  // bfloat16 (vocab, hidden)
  const float* last_norm;
  const uint8_t* head;
  Block blocks[kTokens + 1];

  // The step that runs.
  const int32_t* ids;
  const Span* spans;
  int num_spans, num_tokens;
  Cache cache;
  const float* turns;  // (positions, 2, head_dim / 2): cosines, sines
  const int32_t* wanted;
  int num_wanted;
  float* logits;

  // Shared scratch; a thread's own is in Local.
  std::vector<float> x, qkv, mid, parts;
  struct Local {
    Tokens tokens;
    std::vector<float> queries, scores, joined;
  };
  std::vector<Local> local;

  std::vector<std::thread> workers;
  alignas(64) std::atomic<uint32_t> epoch{0};
  alignas(64) std::atomic<int> arrived{0};
  alignas(64) std::atomic<uint32_t> phase{0};
  bool closing = false;

  void barrier(uint32_t& seen) {
    const int threads = shape.threads;
    if (threads == 1) return;
    seen++;
    if (arrived.fetch_add(1, std::memory_order_acq_rel) == threads - 1) {
      arrived.store(0, std::memory_order_relaxed);
      phase.store(seen, std::memory_order_release);
      return;
    }
    for (int spins = 0; phase.load(std::memory_order_acquire) != seen; spins++) {
      if (spins < 20000) pause_();
      else std::this_thread::yield();  // more threads than cores
    }
  }

  // x / rms(x) * norm of each token, ready for a product.
  void normed(const float* from, int rows, const int32_t* which, const float* norm, Tokens& to) {
    const int d = shape.hidden;
    to.columns = padded(d, kDeep);
    for (int t = 0; t < rows; t++) {
      const float* row = from + size_t(which ? which[t] : t) * d;
      float squares = 0;
      for (int i = 0; i < d; i++) squares += row[i] * row[i];
      const float factor = 1.0f / std::sqrt(squares / d + shape.eps);
      float* y = to.x.data() + size_t(t) * to.columns;
      for (int i = 0; i < d; i++) y[i] = row[i] * factor * norm[i];
      for (int i = d; i < to.columns; i++) y[i] = 0;
    }
    quantise(rows, to);
  }

  void copied(const float* from, int rows, int columns, Tokens& to) {
    to.columns = padded(columns, kDeep);
    for (int t = 0; t < rows; t++) {
      float* y = to.x.data() + size_t(t) * to.columns;
      std::memcpy(y, from + size_t(t) * columns, sizeof(float) * columns);
      for (int i = columns; i < to.columns; i++) y[i] = 0;
    }
    quantise(rows, to);
  }

  void quantise(int rows, Tokens& to) {
    if (shape.bits == 16) return;
    const int zero = shape.bits == 8 ? 128 : 8;
    const size_t groups = size_t(rows) * to.columns / kGroup;
    for (size_t g = 0; g < groups; g++) {
      const float* x = to.x.data() + g * kGroup;
      int8_t* q = to.q.data() + g * kGroup;
      float most = 0;
      for (int i = 0; i < kGroup; i++) {
        const float a = std::fabs(x[i]);
        most = a > most ? a : most;
      }
      const float inverse = most > 0 ? 127.0f / most : 0.0f;
      int32_t sum = 0;
      for (int i = 0; i < kGroup; i++) {
        const float v = x[i] * inverse;
        const int r = int(v + (v < 0 ? -0.5f : 0.5f));
        q[i] = int8_t(r);
        sum += r;
      }
      to.scale[g] = most / 127.0f;
      to.offset[g] = -zero * sum;
    }
  }

  // This thread's blocks of 16 rows; `unit` blocks stay together.
  template <class Use>
  void product(int thread, const uint8_t* weights, int rows, int unit, int tokens, const Tokens& a, Use use) {
    const int units = padded(rows, kRows * unit) / (kRows * unit), threads = shape.threads;
    const size_t size = size_t(a.columns / kDeep) *
                        (shape.bits == 16 ? 2 * kRows * kDeep : 64 + kRows * kDeep * shape.bits / 8);
    alignas(64) float out[2][kTokens][kRows];
    const int first = int(int64_t(units) * thread / threads), last = int(int64_t(units) * (thread + 1) / threads);
    for (int u = first; u < last; u++)
      for (int t0 = 0; t0 < tokens; t0 += kTokens) {
        const int m = tokens - t0 < kTokens ? tokens - t0 : kTokens;
        for (int i = 0; i < unit; i++) blocks[m](weights + size * (size_t(u) * unit + i), a, t0, out[i]);
        for (int t = 0; t < m; t++) use(u, t0 + t, out[0][t], out[1][t]);
      }
  }

  void run(int thread, uint32_t& seen) {
    const int d = shape.hidden, f = shape.inner, e = shape.head_dim, n = num_tokens;
    const int q_size = shape.heads * e, kv_size = shape.kv_heads * e, all = q_size + 2 * kv_size;
    Local& mine = local[thread];
    for (int t = thread; t < n; t += shape.threads)
      for (int i = 0; i < d; i++) x[size_t(t) * d + i] = from_bf16(embedding[size_t(ids[t]) * d + i]);
    barrier(seen);
    for (int l = 0; l < shape.layers; l++) {
      const Layer& layer = layers[l];
      normed(x.data(), n, nullptr, layer.norm1, mine.tokens);
      product(thread, layer.qkv, all, 1, n, mine.tokens, [&](int u, int t, const float* y, const float*) {
        for (int r = u * kRows; r < (u + 1) * kRows && r < all; r++)
          qkv[size_t(t) * all + r] = y[r - u * kRows] + (layer.qkv_bias ? layer.qkv_bias[r] : 0.0f);
      });
      barrier(seen);
      if (cache.is_bf16) attend<uint16_t>(thread, l, mine);
      else attend<float>(thread, l, mine);
      barrier(seen);
      join(mine);
      copied(mine.joined.data(), n, q_size, mine.tokens);
      product(thread, layer.out, d, 1, n, mine.tokens, [&](int u, int t, const float* y, const float*) {
        for (int r = u * kRows; r < (u + 1) * kRows && r < d; r++)
          x[size_t(t) * d + r] += y[r - u * kRows] + (layer.out_bias ? layer.out_bias[r] : 0.0f);
      });
      barrier(seen);
      normed(x.data(), n, nullptr, layer.norm2, mine.tokens);
      product(thread, layer.gate_up, 2 * padded(f, kRows), 2, n, mine.tokens,
              [&](int u, int t, const float* gate, const float* up) {
                float h[kRows];
                for (int r = 0; r < kRows; r++) h[r] = gate[r] / (1.0f + exp_(-gate[r])) * up[r];
                const int rows = f - u * kRows < kRows ? f - u * kRows : kRows;
                std::memcpy(mid.data() + size_t(t) * f + u * kRows, h, sizeof(float) * rows);
              });
      barrier(seen);
      copied(mid.data(), n, f, mine.tokens);
      product(thread, layer.down, d, 1, n, mine.tokens, [&](int u, int t, const float* y, const float*) {
        for (int r = u * kRows; r < (u + 1) * kRows && r < d; r++) x[size_t(t) * d + r] += y[r - u * kRows];
      });
      barrier(seen);
    }
    if (num_wanted == 0) return;
    normed(x.data(), num_wanted, wanted, last_norm, mine.tokens);
    product(thread, head, shape.vocab, 1, num_wanted, mine.tokens, [&](int u, int t, const float* y, const float*) {
      const int rows = shape.vocab - u * kRows < kRows ? shape.vocab - u * kRows : kRows;
      std::memcpy(logits + size_t(t) * shape.vocab + u * kRows, y, sizeof(float) * rows);
    });
  }

  static float load(const uint16_t& x) { return from_bf16(x); }
  static float load(const float& x) { return x; }
  static void store(uint16_t& to, float x) { to = to_bf16(x); }
  static void store(float& to, float x) { to = x; }

  void turn(const float* from, int position, float* to) const {
    const int half = shape.head_dim / 2;
    const float *cos = turns + size_t(position) * 2 * half, *sin = cos + half;
    for (int i = 0; i < half; i++) {
      to[i] = from[i] * cos[i] - from[i + half] * sin[i];
      to[i + half] = from[i + half] * cos[i] + from[i] * sin[i];
    }
  }

  // A share of softmax: for each head and token the largest score, the sum of exponentials, the sum of values.
  size_t part_size() const { return size_t(shape.heads) * (shape.head_dim + 2); }
  float* part(int thread, int token) { return parts.data() + (size_t(thread) * kMaxTokens + token) * part_size(); }

  // Keys go to threads by tiles of 64, whatever else is in the step: a token's arithmetic is the same alone and in
  // company, so what speculation accepts is what one token at a time would have written.
  template <class Number>
  void attend(int thread, int l, Local& mine) {
    const int e = shape.head_dim, groups = shape.heads / shape.kv_heads;
    const int all = (shape.heads + 2 * shape.kv_heads) * e;
    int token = 0;
    for (int s = 0; s < num_spans; token += spans[s].count, s++) {
      const Span span = spans[s];
      Number* base = (Number*)cache.memory + l * cache.layer + span.slot * cache.slot;
      for (int h = 0; h < shape.kv_heads; h++) {
        Number *k = base + h * cache.head, *v = k + cache.kind;
        for (int t = 0; t < span.count; t++) {
          const int position = span.start + t;
          if (position / kTile % shape.threads != thread) continue;
          float turned[512];
          const float* row = qkv.data() + size_t(token + t) * all;
          turn(row + (shape.heads + h) * e, position, turned);
          const float* value = row + (shape.heads + shape.kv_heads + h) * e;
          for (int i = 0; i < e; i++) {
            store(k[size_t(position) * e + i], turned[i]);
            store(v[size_t(position) * e + i], value[i]);
          }
        }
        for (int t = 0; t < span.count; t++) {
          float* to = part(thread, token + t) + size_t(h) * groups * (e + 2);
          for (int g = 0; g < groups; g++) {
            float* p = to + size_t(g) * (e + 2);
            p[0] = -1e30f, p[1] = 0;
            std::memset(p + 2, 0, sizeof(float) * e);
            turn(qkv.data() + size_t(token + t) * all + (h * groups + g) * e, span.start + t,
                 mine.queries.data() + g * e);
          }
          const int end = span.start + t + 1;
          for (int j = thread * kTile; j < end; j += shape.threads * kTile) {
            const int tile = end - j < kTile ? end - j : kTile;
            const Number *tile_k = k + size_t(j) * e, *tile_v = v + size_t(j) * e;
            switch (e) {
              case 64: share<Number, 64>(tile_k, tile_v, tile, groups, e, mine, to); break;
              case 80: share<Number, 80>(tile_k, tile_v, tile, groups, e, mine, to); break;
              case 96: share<Number, 96>(tile_k, tile_v, tile, groups, e, mine, to); break;
              case 128: share<Number, 128>(tile_k, tile_v, tile, groups, e, mine, to); break;
              default: share<Number, 0>(tile_k, tile_v, tile, groups, e, mine, to);
            }
          }
        }
      }
    }
  }

  // One tile of keys into the running softmax of the query heads that share them. kDim is the head's size where it
  // is a multiple of 16 that was compiled for, else 0.
  template <class Number, int kDim>
  void share(const Number* k, const Number* v, int tile, int groups, int dim, Local& mine, float* to) {
    constexpr int kLanes = kDim ? kDim / 16 : 1;
    const int e = kDim ? kDim : dim;
    const float scale = 1.0f / std::sqrt(float(e));
    if (kDim) {
      for (int j0 = 0; j0 < tile; j0 += 16)
        for (int g = 0; g < groups; g++) {
          Lanes q[kLanes], dots[16] = {};
          for (int i = 0; i < kLanes; i++) q[i] = lanes(mine.queries.data() + g * e + 16 * i);
          const int keys = tile - j0 < 16 ? tile - j0 : 16;
          for (int j = 0; j < keys; j++)
            for (int i = 0; i < kLanes; i++) dots[j] += q[i] * lanes(k + size_t(j0 + j) * e + 16 * i);
          const Lanes all = sums(dots) * scale;
          std::memcpy(mine.scores.data() + g * kTile + j0, &all, sizeof(all));
        }
    } else {
      for (int j = 0; j < tile; j++)
        for (int g = 0; g < groups; g++) {
          float sum = 0;
          for (int i = 0; i < e; i++) sum += load(k[size_t(j) * e + i]) * mine.queries[g * e + i];
          mine.scores[g * kTile + j] = sum * scale;
        }
    }
    for (int g = 0; g < groups; g++) {
      float *p = to + size_t(g) * (e + 2), *score = mine.scores.data() + g * kTile, *y = p + 2;
      float most = p[0];
      for (int j = 0; j < tile; j++) most = score[j] > most ? score[j] : most;
      const float kept = exp_(p[0] - most);
      float total = 0;
      for (int j = 0; j < tile; j++) {
        score[j] = exp_(score[j] - most);
        total += score[j];
      }
      p[0] = most, p[1] = p[1] * kept + total;
      if (kDim) {
        Lanes sum[kLanes];
        for (int i = 0; i < kLanes; i++) sum[i] = lanes(y + 16 * i) * kept;
        for (int j = 0; j < tile; j++)
          for (int i = 0; i < kLanes; i++) sum[i] += score[j] * lanes(v + size_t(j) * e + 16 * i);
        std::memcpy(y, sum, sizeof(float) * e);
      } else {
        for (int i = 0; i < e; i++) y[i] *= kept;
        for (int j = 0; j < tile; j++)
          for (int i = 0; i < e; i++) y[i] += score[j] * load(v[size_t(j) * e + i]);
      }
    }
  }

  void join(Local& mine) {
    const int e = shape.head_dim;
    for (int t = 0; t < num_tokens; t++)
      for (int h = 0; h < shape.heads; h++) {
        float most = -1e30f, total = 0;
        float* y = mine.joined.data() + (size_t(t) * shape.heads + h) * e;
        std::memset(y, 0, sizeof(float) * e);
        for (int i = 0; i < shape.threads; i++) {
          const float* p = part(i, t) + size_t(h) * (e + 2);
          most = p[0] > most ? p[0] : most;
        }
        for (int i = 0; i < shape.threads; i++) {
          const float* p = part(i, t) + size_t(h) * (e + 2);
          const float weight = p[1] > 0 ? exp_(p[0] - most) : 0.0f;
          total += p[1] * weight;
          for (int c = 0; c < e; c++) y[c] += p[2 + c] * weight;
        }
        for (int c = 0; c < e; c++) y[c] /= total;
      }
  }

  void work(int thread) {
    uint32_t done = 0, seen = 0;
    for (;;) {
      for (int spins = 0; epoch.load(std::memory_order_acquire) == done; spins++) {
        if (spins < 4000) pause_();
        else epoch.wait(done, std::memory_order_acquire);
      }
      done++;
      if (closing) return;
      run(thread, seen);
      barrier(seen);
    }
  }

  uint32_t seen0 = 0;
  void step() {
    epoch.fetch_add(1, std::memory_order_release);
    if (shape.threads > 1) epoch.notify_all();
    run(0, seen0);
    barrier(seen0);
  }
};

}  // namespace

extern "C" {

int midspan_version() { return 1; }

const char* midspan_instructions() {
#if defined(__AVX512VNNI__)
  return "avx512-vnni";
#elif defined(__AVX2__)
  return "avx2";
#else
  return "plain";
#endif
}

int midspan_max_tokens() { return kMaxTokens; }

void* midspan_open(const Shape* shape, const Layer* layers, const uint16_t* embedding, const float* last_norm,
                   const uint8_t* head) {
  auto* decoder = new Decoder;
  decoder->shape = *shape;
  decoder->layers.assign(layers, layers + shape->layers);
  decoder->embedding = embedding, decoder->last_norm = last_norm, decoder->head = head;
  decoder->blocks[1] = block_of<1>(shape->bits), decoder->blocks[2] = block_of<2>(shape->bits);
  decoder->blocks[3] = block_of<3>(shape->bits), decoder->blocks[4] = block_of<4>(shape->bits);
  decoder->blocks[5] = block_of<5>(shape->bits), decoder->blocks[6] = block_of<6>(shape->bits);
  decoder->blocks[7] = block_of<7>(shape->bits), decoder->blocks[8] = block_of<8>(shape->bits);
  const int q_size = shape->heads * shape->head_dim;
  const int all = q_size + 2 * shape->kv_heads * shape->head_dim;
  int widest = shape->hidden > shape->inner ? shape->hidden : shape->inner;
  widest = widest > q_size ? widest : q_size;
  decoder->x.resize(size_t(kMaxTokens) * shape->hidden);
  decoder->qkv.resize(size_t(kMaxTokens) * all);
  decoder->mid.resize(size_t(kMaxTokens) * shape->inner);
  decoder->parts.resize(size_t(shape->threads) * kMaxTokens * decoder->part_size());
  decoder->local.resize(shape->threads);
  for (auto& one : decoder->local) {
    one.tokens.reserve(widest, kMaxTokens, shape->bits != 16);
    one.queries.resize(q_size);
    one.scores.resize(size_t(shape->heads) * kTile);
    one.joined.resize(size_t(kMaxTokens) * q_size);
  }
  for (int i = 1; i < shape->threads; i++) decoder->workers.emplace_back([decoder, i] { decoder->work(i); });
  return decoder;
}

void midspan_step(void* handle, const int32_t* ids, const Span* spans, int num_spans, const Cache* cache,
                  const float* turns, const int32_t* wanted, int num_wanted, float* logits) {
  auto* decoder = static_cast<Decoder*>(handle);
  decoder->ids = ids, decoder->spans = spans, decoder->num_spans = num_spans, decoder->cache = *cache;
  decoder->turns = turns, decoder->wanted = wanted, decoder->num_wanted = num_wanted, decoder->logits = logits;
  decoder->num_tokens = 0;
  for (int s = 0; s < num_spans; s++) decoder->num_tokens += spans[s].count;
  decoder->step();
}

void midspan_close(void* handle) {
  auto* decoder = static_cast<Decoder*>(handle);
  decoder->closing = true;
  decoder->epoch.fetch_add(1, std::memory_order_release);
  decoder->epoch.notify_all();
  for (auto& worker : decoder->workers) worker.join();
  delete decoder;
}
}
