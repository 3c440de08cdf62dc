// One step of a Llama: a few tokens of a few sequences in, logits out, weights read once.
//
// Compiled by the user's own compiler for the user's own processor (see library.py), so instructions are chosen
// by the compiler's macros. Python holds all memory but scratch; its layouts are described in model/quant.py
// (weights) and model/cache.py (keys and values).
//
// Up to 31 tokens meet the weights as int8 (beside 8 and 4 bits) or float (beside 16); more are tiles of bfloat16
// where the processor has AMX or AVX512-BF16 (tiles.h).
//
//   every thread            norm and int8 of the step's tokens, for itself: cheaper than waiting for another
//   rows of QKV             | barrier
//   its share of the keys   rotates queries for itself, writes the new keys that fall in its share | barrier
//   rows of O               joins the shares of softmax first | barrier
//   rows of gate and up     silu(gate) * up where both are in hand | barrier
//   rows of down            | barrier
//
// An adapter adds up (down x) to a product, in 16 bits: every thread takes all of down x for itself, and the rows of
// up that belong to its own. Some rows of the vocabulary may be an adapter's too. The base's weights are not touched,
// so decoders of several adapters read the same ones.
//
// Threads stay for the decoder's life, spin between stages, and sleep between steps once a while has passed.
// A thread's rows and keys depend on sizes alone, so the same call gives the same bits.
#include <atomic>
#include <thread>
#include <type_traits>
#include <vector>

#include "eights.h"
#include "numbers.h"
#include "pairs.h"
#include "products.h"
#include "tiles.h"

namespace {

struct Shape {
  int32_t layers, hidden, inner, heads, kv_heads, head_dim, vocab, bits, threads;
  float eps;
};

struct Layer {
  const uint8_t *qkv, *out, *gate_up, *down;
  const float *qkv_bias, *out_bias, *norm1, *norm2;
  struct Low {  // an adapter's part of a product, in 16 bits
    const uint8_t *down, *up;
    int64_t rank;  // rows of `down`, a multiple of kDeep; 0 where there is no adapter
  } low[4];        // of qkv, out, gate_up, down
};
using Low = Layer::Low;

struct Rows {  // rows of the vocabulary in place of the base's
  const int32_t *ids, *row_of;  // which; and for every id its row or -1
  const uint16_t* embedding;    // bfloat16 (count, hidden)
  const uint8_t* head;          // 16 bits
  int32_t count, base;          // `base`: rows of the base's head
};

struct Cache {  // memory (layers, 2, slots, kv heads, capacity, head_dim), strides in elements
  void* memory;
  int64_t layer, kind, slot, head;
  int32_t is_bf16;
};

struct Span {  // `count` consecutive tokens of one sequence, the first at position `start`
  int32_t slot, start, count;
};

constexpr size_t kPanel = 768 << 10;           // bytes of unpacked weights
constexpr int kRun = 128;                      // queries that share the arranging of keys
constexpr int kQueries = kMaxTokens + 32;      // a tile's last rows may lie behind the last token

struct Decoder {
  Shape shape;
  bool tiles_allowed = false;
  std::vector<Layer> layers;
  const uint16_t* embedding;  // bfloat16 (vocab, hidden)
  const float* last_norm;
  const uint8_t* head;
  Block blocks[kTokens + 1], blocks16[kTokens + 1];
  Rows rows = {};

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
  Vector<float> x, qkv, mid, parts, attended;
  Vector<uint16_t> many, queries;  // of a step of many tokens: a product's right side; rotated queries
  struct Local {
    Tokens tokens, low;
    Vector<float> queries, scores, kept, joined;
    Vector<uint16_t> panel, rows, keys, values, shares, low_many;
    Vector<float> sums;
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

  // x / rms(x) * norm of a token.
  void normed(const float* row, const float* norm, float* y) const {
    const int d = shape.hidden;
    float squares = 0;
    for (int i = 0; i < d; i++) squares += row[i] * row[i];
    const float factor = 1.0f / std::sqrt(squares / d + shape.eps);
    for (int i = 0; i < d; i++) y[i] = row[i] * factor * norm[i];
  }

  // Of tokens of `x`, ready for a product.
  void normed(int rows, const int32_t* which, const float* norm, Tokens& to) {
    const int d = shape.hidden;
    to.columns = padded(d, kDeep);
    for (int t = 0; t < rows; t++) {
      float* y = to.x.data() + size_t(t) * to.columns;
      normed(x.data() + size_t(which ? which[t] : t) * d, norm, y);
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
    for (size_t g = 0; g < groups; g++)
      to.offset[g] = -zero * quantised(to.x.data() + g * kGroup, to.q.data() + g * kGroup, &to.scale[g]);
  }

  // Many tokens, each thread its share, as bfloat16 rows in `many`; threads meet before they go on.
  template <class Row>
  void gather(int thread, uint32_t& seen, int columns, Row row) {
    const int wide = padded(columns, kDeep);
    for (int t = thread; t < num_tokens; t += shape.threads) {
      const float* from = row(t);
      uint16_t* to = many.data() + size_t(t) * wide;
      for (int i = 0; i < columns; i++) to[i] = to_bf16(from[i]);
      for (int i = columns; i < wide; i++) to[i] = 0;
    }
    barrier(seen);
  }

  // As `product`, with the tokens in `many`.
  template <class Use>
  void product_many(int thread, const uint8_t* weights, int rows, int unit, int columns, const Low& low, Use use) {
    Local& mine = local[thread];
    if (low.rank) lower_many(low, columns, mine);
    const uint16_t* up = (const uint16_t*)low.up;
    const size_t up_half = size_t(kRows) * low.rank;
    const int units = padded(rows, kRows * unit) / (kRows * unit), threads = shape.threads;
    const int deep = padded(columns, kDeep), blocks = deep / kDeep;
    const size_t size = block_row(deep), half = size_t(kRows) * deep;
    const int first = int(int64_t(units) * thread / threads), last = int(int64_t(units) * (thread + 1) / threads);
    // As many rows as leave room for the tokens in the second-level cache.
    const int most = int(kPanel / (2 * half)) / 2 * 2 / unit, step = most < 2 / unit ? 2 / unit : most;
    alignas(64) Tile c, more;
    for (int u0 = first; u0 < last; u0 += step) {
      const int count = (last - u0 < step ? last - u0 : step) * unit;
      const uint16_t* panel = (const uint16_t*)(weights + size * size_t(u0) * unit);
      if (shape.bits != 16) {
        for (int i = 0; i < count; i++)
          unpack(weights + size * (size_t(u0) * unit + i), shape.bits, blocks, mine.panel.data() + half * i);
        panel = mine.panel.data();
      }
      for (int t0 = 0; t0 < num_tokens; t0 += 32) {
        const int m = num_tokens - t0 < 32 ? num_tokens - t0 : 32;
        for (int i = 0; i < count; i += 2) {
          const bool both = i + 1 < count;
          tile(many.data() + size_t(t0) * deep, deep, panel + half * i, panel + half * (both ? i + 1 : i), deep, c);
          if (low.rank) {
            const uint16_t* mine_up = up + up_half * (size_t(u0) * unit + i);
            tile(mine.low_many.data() + size_t(t0) * low.rank, low.rank, mine_up, mine_up + (both ? up_half : 0),
                 low.rank, more);
            for (int t = 0; t < m; t++)
              for (int j = 0; j < 2; j++)
                for (int r = 0; r < kRows; r++) c[t][j][r] += more[t][j][r];
          }
          for (int t = 0; t < m; t++)
            if (unit == 2) use(u0 + i / 2, t0 + t, c[t][0], c[t][1]);
            else {
              use(u0 + i, t0 + t, c[t][0], c[t][0]);
              if (both) use(u0 + i + 1, t0 + t, c[t][1], c[t][1]);
            }
        }
      }
    }
  }

  size_t block_row(int deep) const {  // bytes of 16 rows
    return size_t(deep / kDeep) * (shape.bits == 16 ? 2 * kRows * kDeep : 64 + kRows * kDeep * shape.bits / 8);
  }

  // down x of an adapter, of all tokens.
  void lower(const Low& low, int tokens, const Tokens& a, Tokens& to) {
    to.columns = int(low.rank);
    alignas(64) float out[kTokens][kRows];
    for (int u = 0; u < int(low.rank) / kRows; u++)
      for (int t0 = 0; t0 < tokens; t0 += kTokens) {
        const int m = tokens - t0 < kTokens ? tokens - t0 : kTokens;
        blocks16[m](low.down + size_t(2) * kRows * a.columns * u, a, t0, out);
        for (int t = 0; t < m; t++)
          std::memcpy(to.x.data() + size_t(t0 + t) * low.rank + u * kRows, out[t], sizeof(out[t]));
      }
  }

  void lower_many(const Low& low, int columns, Local& mine) {
    const int deep = padded(columns, kDeep);
    const uint16_t* down = (const uint16_t*)low.down;
    const size_t half = size_t(kRows) * deep;
    alignas(64) Tile c;
    for (int t0 = 0; t0 < num_tokens; t0 += 32)
      for (int i = 0; i < low.rank / kRows; i += 2) {
        tile(many.data() + size_t(t0) * deep, deep, down + half * i, down + half * (i + 1), deep, c);
        for (int t = 0; t < 32; t++)
          for (int r = 0; r < 2 * kRows; r++)
            mine.low_many[size_t(t0 + t) * low.rank + i * kRows + r] = to_bf16(c[t][r / kRows][r % kRows]);
      }
  }

  // This thread's blocks of 16 rows; `unit` blocks stay together.
  template <class Use>
  void product(int thread, const uint8_t* weights, int rows, int unit, int tokens, const Tokens& a, const Low& low,
               Use use) {
    Tokens& lowered = local[thread].low;
    if (low.rank) lower(low, tokens, a, lowered);
    const size_t up_size = size_t(2) * kRows * low.rank;
    alignas(64) float more[kTokens][kRows];
    const int units = padded(rows, kRows * unit) / (kRows * unit), threads = shape.threads;
    const size_t size = block_row(a.columns);
    alignas(64) float out[2][kTokens][kRows];
    const int first = int(int64_t(units) * thread / threads), last = int(int64_t(units) * (thread + 1) / threads);
    for (int u = first; u < last; u++)
      for (int t0 = 0; t0 < tokens; t0 += kTokens) {
        const int m = tokens - t0 < kTokens ? tokens - t0 : kTokens;
        for (int i = 0; i < unit; i++) {
          const size_t at = size_t(u) * unit + i;
          blocks[m](weights + size * at, a, t0, out[i]);
          if (!low.rank) continue;
          blocks16[m](low.up + up_size * at, lowered, t0, more);
          for (int t = 0; t < m; t++)
            for (int r = 0; r < kRows; r++) out[i][t][r] += more[t][r];
        }
        for (int t = 0; t < m; t++) use(u, t0 + t, out[0][t], out[1][t]);
      }
  }

  void run(int thread, uint32_t& seen) {
    const int d = shape.hidden, f = shape.inner, e = shape.head_dim, n = num_tokens;
    const int q_size = shape.heads * e, kv_size = shape.kv_heads * e, all = q_size + 2 * kv_size;
    Local& mine = local[thread];
    const bool tiles = is_many();
    if (tiles_allowed) tiles_begin();
    const auto product_of = [&](const uint8_t* weights, int rows, int unit, int columns, const Low& low, auto use) {
      if (tiles) product_many(thread, weights, rows, unit, columns, low, use);
      else product(thread, weights, rows, unit, n, mine.tokens, low, use);
    };
    const auto norm_all = [&](const float* norm) {
      if (!tiles) return normed(n, nullptr, norm, mine.tokens);
      gather(thread, seen, d, [&](int t) {
        normed(x.data() + size_t(t) * d, norm, mine.joined.data());
        return mine.joined.data();
      });
    };
    for (int t = thread; t < n; t += shape.threads) {
      const int own = rows.count ? rows.row_of[ids[t]] : -1;
      const uint16_t* row = own >= 0 ? rows.embedding + size_t(own) * d : embedding + size_t(ids[t]) * d;
      for (int i = 0; i < d; i++) x[size_t(t) * d + i] = from_bf16(row[i]);
    }
    barrier(seen);
    for (int l = 0; l < shape.layers; l++) {
      const Layer& layer = layers[l];
      norm_all(layer.norm1);
      product_of(layer.qkv, all, 1, d, layer.low[0], [&](int u, int t, const float* y, const float*) {
        for (int r = u * kRows; r < (u + 1) * kRows && r < all; r++)
          qkv[size_t(t) * all + r] = y[r - u * kRows] + (layer.qkv_bias ? layer.qkv_bias[r] : 0.0f);
      });
      barrier(seen);
      if (cache.is_bf16) attention<uint16_t>(thread, l, mine, seen);
      else attention<float>(thread, l, mine, seen);
      barrier(seen);
      if (tiles) {
        gather(thread, seen, q_size, [&](int t) { return attended.data() + size_t(t) * q_size; });
      } else {
        join(mine);
        copied(mine.joined.data(), n, q_size, mine.tokens);
      }
      product_of(layer.out, d, 1, q_size, layer.low[1], [&](int u, int t, const float* y, const float*) {
        for (int r = u * kRows; r < (u + 1) * kRows && r < d; r++)
          x[size_t(t) * d + r] += y[r - u * kRows] + (layer.out_bias ? layer.out_bias[r] : 0.0f);
      });
      barrier(seen);
      norm_all(layer.norm2);
      product_of(layer.gate_up, 2 * padded(f, kRows), 2, d, layer.low[2], [&](int u, int t, const float* gate, const float* up) {
        const Lanes g = lanes(gate), h = g / (1.0f + exps(-g)) * lanes(up);
        const int rows = f - u * kRows < kRows ? f - u * kRows : kRows;
        std::memcpy(mid.data() + size_t(t) * f + u * kRows, &h, sizeof(float) * rows);
      });
      barrier(seen);
      if (tiles) gather(thread, seen, f, [&](int t) { return mid.data() + size_t(t) * f; });
      else copied(mid.data(), n, f, mine.tokens);
      product_of(layer.down, d, 1, f, layer.low[3], [&](int u, int t, const float* y, const float*) {
        for (int r = u * kRows; r < (u + 1) * kRows && r < d; r++) x[size_t(t) * d + r] += y[r - u * kRows];
      });
      barrier(seen);
    }
    if (tiles_allowed) tiles_end();
    for (int first = 0; first < num_wanted; first += kMany) {
      const int count = num_wanted - first < kMany ? num_wanted - first : kMany;
      normed(count, wanted + first, last_norm, mine.tokens);
      const int base = rows.count ? rows.base : shape.vocab;
      product(thread, head, base, 1, count, mine.tokens, Low{}, [&](int u, int t, const float* y, const float*) {
        const int inside = base - u * kRows < kRows ? base - u * kRows : kRows;
        std::memcpy(logits + size_t(first + t) * shape.vocab + u * kRows, y, sizeof(float) * inside);
      });
      if (rows.count) own_logits(thread, first, count, mine, seen);
    }
  }

  // Over what the base says of an adapter's own rows.
  void own_logits(int thread, int first, int count, Local& mine, uint32_t& seen) {
    barrier(seen);
    const size_t size = size_t(2) * kRows * mine.tokens.columns;
    alignas(64) float out[kTokens][kRows];
    for (int u = thread; u < padded(rows.count, kRows) / kRows; u += shape.threads)
      for (int t0 = 0; t0 < count; t0 += kTokens) {
        const int m = count - t0 < kTokens ? count - t0 : kTokens;
        blocks16[m](rows.head + size * u, mine.tokens, t0, out);
        for (int t = 0; t < m; t++)
          for (int r = u * kRows; r < (u + 1) * kRows && r < rows.count; r++)
            logits[size_t(first + t0 + t) * shape.vocab + rows.ids[r]] = out[t][r - u * kRows];
      }
  }

  bool is_many() const { return tiles_allowed && num_tokens >= kMany; }

  template <class Number>
  void attention(int thread, int l, Local& mine, uint32_t& seen) {
    if (is_many()) attend_many<Number>(thread, l, mine, seen);
    else attend<Number>(thread, l, mine);
  }

  static float load(const uint16_t& x) { return from_bf16(x); }
  static float load(const float& x) { return x; }
  static uint16_t half_of(uint16_t x) { return x; }
  static uint16_t half_of(float x) { return to_bf16(x); }
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
  float* part(int thread, int token) { return parts.data() + (size_t(thread) * kFew + token) * part_size(); }

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
        if constexpr (kHasAmx && std::is_same_v<Number, uint16_t>)
          if (tiles_allowed) {
            attend_by_tiles(span, token, h, k, thread, mine);
            continue;
          }
        for (int t = 0; t < span.count; t++) {
          for (int g = 0; g < groups; g++) {
            float* p = part(thread, token + t) + size_t(h * groups + g) * (e + 2);
            p[0] = -1e30f, p[1] = 0;
            std::memset(p + 2, 0, sizeof(float) * e);
            turn(qkv.data() + size_t(token + t) * all + (h * groups + g) * e, span.start + t,
                 mine.queries.data() + size_t(t * groups + g) * e);
          }
        }
        // A tile is read once for all tokens.
        for (int j = thread * kTile; j < span.start + span.count; j += shape.threads * kTile) {
          const Number *tile_k = k + size_t(j) * e, *tile_v = v + size_t(j) * e;
          for (int t = j > span.start ? j - span.start : 0; t < span.count; t++) {
            const int left = span.start + t + 1 - j, tile = left < kTile ? left : kTile;
            const float* q = mine.queries.data() + size_t(t) * groups * e;
            float* to = part(thread, token + t) + size_t(h) * groups * (e + 2);
            switch (e) {
              case 64: share<Number, 64>(tile_k, tile_v, tile, groups, e, q, mine, to); break;
              case 80: share<Number, 80>(tile_k, tile_v, tile, groups, e, q, mine, to); break;
              case 96: share<Number, 96>(tile_k, tile_v, tile, groups, e, q, mine, to); break;
              case 128: share<Number, 128>(tile_k, tile_v, tile, groups, e, q, mine, to); break;
              default: share<Number, 0>(tile_k, tile_v, tile, groups, e, q, mine, to);
            }
          }
        }
      }
    }
  }

  // The same with tiles: sixteen queries, of one token or of several, against 64 keys in bfloat16.
  void attend_by_tiles(const Span& span, int token, int h, const uint16_t* k, int thread, Local& mine) {
    const int e = shape.head_dim, wide = padded(e, 32), groups = shape.heads / shape.kv_heads;
    const int rows = span.count * groups, end = span.start + span.count;
    const size_t all = (shape.heads + 2 * shape.kv_heads) * e;
    const float scale = 1.0f / std::sqrt(float(e));
    const auto state = [&](int r) {
      return part(thread, token + r / groups) + size_t(h * groups + r % groups) * (e + 2);
    };
    for (int r = 0; r < rows; r++) {
      float *p = state(r), turned[512];
      p[0] = -1e30f, p[1] = 0;
      std::memset(p + 2, 0, sizeof(float) * e);
      turn(qkv.data() + (token + r / groups) * all + (h * groups + r % groups) * e, span.start + r / groups, turned);
      for (int i = 0; i < e; i++) mine.rows[size_t(r) * wide + i] = to_bf16(turned[i] * scale);
    }
    alignas(64) Few c;
    for (int j = thread * kTile; j < end; j += shape.threads * kTile) {
      arrange(k + size_t(j) * e, k + cache.kind + size_t(j) * e, end - j < kTile ? end - j : kTile, wide, mine);
      // The next tile is a stride away, where no processor looks ahead by itself.
      const char* next = (const char*)(k + size_t(j + shape.threads * kTile) * e);
      if (j + shape.threads * kTile < end)
        for (int i = 0; i < kTile * e * 2; i += 64)
          __builtin_prefetch(next + i, 0, 2), __builtin_prefetch(next + 2 * cache.kind + i, 0, 2);
      for (int r0 = 0; r0 < rows; r0 += 16) {
        const int count = rows - r0 < 16 ? rows - r0 : 16;
        float kept[16];
        few<4>(mine.rows.data() + size_t(r0) * wide, wide, mine.keys.data(), size_t(kRows) * wide, wide, c);
        for (int r = 0; r < count; r++) {
          const int seen = span.start + (r0 + r) / groups + 1 - j;
          uint16_t* shares = mine.shares.data() + r * kTile;
          const float* blocks[4] = {c[r][0], c[r][1], c[r][2], c[r][3]};
          kept[r] = 1.0f;
          if (seen > 0) kept[r] = soften(blocks, seen, state(r0 + r), shares);
          else std::memset(shares, 0, sizeof(*shares) * kTile);
        }
        for (int i0 = 0; i0 < wide; i0 += 64) {
          const uint16_t* v = mine.values.data() + i0 * kTile;
          if (wide - i0 < 64) few<2>(mine.shares.data(), kTile, v, kRows * kTile, kTile, c);
          else few<4>(mine.shares.data(), kTile, v, kRows * kTile, kTile, c);
          const int size = e - i0 < 64 ? e - i0 : 64;
          for (int r = 0; r < count; r++) {
            float* y = state(r0 + r) + 2 + i0;
            const float *more = (const float*)c + r * 64, factor = kept[r];
            for (int i = 0; i < size; i++) y[i] = y[i] * factor + more[i];
          }
        }
      }
    }
  }

  // One tile of keys into the running softmax of the query heads that share them. kDim is the head's size where it
  // is a multiple of 16 that was compiled for, else 0.
  template <class Number, int kDim>
  void share(const Number* k, const Number* v, int tile, int groups, int dim, const float* queries, Local& mine,
             float* to) {
    constexpr int kLanes = kDim ? kDim / 16 : 1;
    const int e = kDim ? kDim : dim;
    const float scale = 1.0f / std::sqrt(float(e));
    constexpr bool kPairs = kHasPairs && kDim && kDim % 32 == 0 && std::is_same_v<Number, uint16_t>;
    constexpr bool kEights = !kPairs && kHasEights && kDim;
    if constexpr (kPairs) {
      scores_by_pairs<kDim>(k, tile, groups, queries, scale, mine.scores.data());
    } else if constexpr (kEights) {
      scores_by_eights<kDim>(k, tile, groups, queries, scale, mine.scores.data());
    } else if (kDim) {
      for (int j0 = 0; j0 < tile; j0 += 16)
        for (int g = 0; g < groups; g++) {
          Lanes q[kLanes], dots[16] = {};
          for (int i = 0; i < kLanes; i++) q[i] = lanes(queries + g * e + 16 * i);
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
          for (int i = 0; i < e; i++) sum += load(k[size_t(j) * e + i]) * queries[g * e + i];
          mine.scores[g * kTile + j] = sum * scale;
        }
    }
    for (int g = 0; g < groups; g++) {
      float *p = to + size_t(g) * (e + 2), *score = mine.scores.data() + g * kTile, *y = p + 2;
      for (int j = tile; j < padded(tile, 16); j++) score[j] = -1e30f;
      Vec top = vec(score);
      for (int j = kVector; j < tile; j += kVector) top = larger(top, vec(score + j));
      float all[kVector];
      std::memcpy(all, &top, sizeof(top));
      const float found = largest_of(all, kVector), most = found > p[0] ? found : p[0];
      const float kept = exp_(p[0] - most);
      Vec sums = {};
      for (int j = 0; j < tile; j += kVector) {
        const Vec exponentials = exps(vec(score + j) - most);
        std::memcpy(score + j, &exponentials, sizeof(exponentials));
        sums += exponentials;
      }
      std::memcpy(all, &sums, sizeof(sums));
      float total = 0;
      for (int i = 0; i < kVector; i++) total += all[i];
      p[0] = most, p[1] = p[1] * kept + total;
      mine.kept[g] = kept;
      if constexpr (kPairs || kEights) continue;  // below, of several queries at once
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
    if constexpr (kPairs)
      values_by_pairs<kDim>(v, tile, groups, mine.scores.data(), mine.kept.data(), to + 2, e + 2);
    if constexpr (kEights)
      values_by_eights<kDim>(v, tile, groups, mine.scores.data(), mine.kept.data(), to + 2, e + 2);
  }

  // Many tokens: 32 queries against 64 keys at a time. Threads share out heads and runs of 128 queries.
  template <class Number>
  void attend_many(int thread, int l, Local& mine, uint32_t& seen) {
    const int e = shape.head_dim, wide = padded(e, 32), groups = shape.heads / shape.kv_heads;
    const int all = (shape.heads + 2 * shape.kv_heads) * e;
    const float scale = 1.0f / std::sqrt(float(e));
    int token = 0;
    for (int s = 0; s < num_spans; token += spans[s].count, s++) {
      Number* base = (Number*)cache.memory + l * cache.layer + spans[s].slot * cache.slot;
      for (int t = thread; t < spans[s].count; t += shape.threads) {
        const int position = spans[s].start + t;
        const float* row = qkv.data() + size_t(token + t) * all;
        float turned[512];
        for (int h = 0; h < shape.heads + shape.kv_heads; h++) {
          turn(row + h * e, position, turned);
          if (h < shape.heads) {
            uint16_t* to = queries.data() + (size_t(h) * kQueries + token + t) * wide;
            for (int i = 0; i < wide; i++) to[i] = i < e ? to_bf16(turned[i] * scale) : 0;
          } else {
            Number* k = base + (h - shape.heads) * cache.head + size_t(position) * e;
            for (int i = 0; i < e; i++) store(k[i], turned[i]), store(k[cache.kind + i], row[h * e + kv_size() + i]);
          }
        }
      }
    }
    barrier(seen);
    token = 0;
    for (int s = 0; s < num_spans; token += spans[s].count, s++) {
      const Number* base = (const Number*)cache.memory + l * cache.layer + spans[s].slot * cache.slot;
      for (int h = 0; h < shape.kv_heads; h++)
        for (int b = 0; b * kRun < spans[s].count; b++) {
          if ((s + h + b) % shape.threads != thread) continue;
          const int left = spans[s].count - b * kRun;
          run_of_queries(base + h * cache.head, token + b * kRun, spans[s].start + b * kRun, left < kRun ? left : kRun,
                         h * groups, groups, mine);
        }
    }
  }

  int kv_size() const { return shape.kv_heads * shape.head_dim; }

  template <class Number>
  void run_of_queries(const Number* k, int token, int start, int count, int head, int groups, Local& mine) {
    const int e = shape.head_dim, wide = padded(e, 32);
    const size_t state = wide + 2;  // sums, largest score, sum of exponentials
    for (int i = 0; i < groups * kRun; i++) {
      float* sums = mine.sums.data() + i * state;
      std::memset(sums, 0, sizeof(float) * state);
      sums[wide] = -1e30f;
    }
    alignas(64) Tile scores[2], more;
    for (int j0 = 0; j0 < start + count; j0 += kTile) {
      const int keys = start + count - j0 < kTile ? start + count - j0 : kTile;
      arrange(k + size_t(j0) * e, k + cache.kind + size_t(j0) * e, keys, wide, mine);
      for (int g = 0; g < groups; g++)
        for (int q0 = 0; q0 < count; q0 += 32) {
          const int rows = count - q0 < 32 ? count - q0 : 32;
          if (j0 > start + q0 + rows - 1) continue;
          const uint16_t* q = queries.data() + (size_t(head + g) * kQueries + token + q0) * wide;
          for (int i = 0; i < 2; i++)
            tile(q, wide, mine.keys.data() + 2 * i * kRows * wide, mine.keys.data() + (2 * i + 1) * kRows * wide, wide,
                 scores[i]);
          float kept[32];
          for (int r = 0; r < rows; r++) {
            float* sums = mine.sums.data() + (size_t(g) * kRun + q0 + r) * state;
            const float* blocks[4] = {scores[0][r][0], scores[0][r][1], scores[1][r][0], scores[1][r][1]};
            kept[r] = soften(blocks, start + q0 + r + 1 - j0, sums + wide, mine.shares.data() + r * kTile);
          }
          for (int i = 0; i < wide; i += 32) {
            tile(mine.shares.data(), kTile, mine.values.data() + i * kTile, mine.values.data() + (i + 16) * kTile, kTile,
                 more);
            for (int r = 0; r < rows; r++) {
              float* sums = mine.sums.data() + (size_t(g) * kRun + q0 + r) * state + i;
              const Lanes first = lanes(sums) * kept[r] + lanes(more[r][0]);
              const Lanes second = lanes(sums + 16) * kept[r] + lanes(more[r][1]);
              std::memcpy(sums, &first, 64), std::memcpy(sums + 16, &second, 64);
            }
          }
        }
    }
    for (int g = 0; g < groups; g++)
      for (int t = 0; t < count; t++) {
        const float* sums = mine.sums.data() + (size_t(g) * kRun + t) * state;
        float* to = attended.data() + (size_t(token + t) * shape.heads + head + g) * e;
        for (int i = 0; i < e; i++) to[i] = sums[i] / sums[wide + 1];
      }
  }

  // One query's scores of 64 keys, of which it may see `seen`, as bfloat16 shares; what its sums are scaled by.
  static float soften(const float* const* scores, int seen, float* running, uint16_t* shares) {
    const Lanes at = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    Lanes x[4], most = Lanes{} - 1e30f, total = {};
    for (int i = 0; i < 4; i++) {
      x[i] = lanes(scores[i]);
      if (seen < 16 * i + 16) x[i] = at < float(seen - 16 * i) ? x[i] : Lanes{} - 1e30f;
      most = x[i] > most ? x[i] : most;
    }
    const float found = largest_of(most), largest = found > running[0] ? found : running[0];
    for (int i = 0; i < 4; i++) {
      x[i] = exps(x[i] - largest);
      if (seen < 16 * i + 16) x[i] = at < float(seen - 16 * i) ? x[i] : Lanes{};
      total += x[i];
      const Halves half = __builtin_convertvector(((Bits)x[i] + 0x8000u) >> 16, Halves);
      std::memcpy(shares + 16 * i, &half, 32);
    }
    const float kept = exp_(running[0] - largest);
    running[0] = largest, running[1] = running[1] * kept + sum_of(total);
    return kept;
  }

  // 64 keys as blocks of 16 keys by `wide` columns, and their values as blocks of 16 dimensions by 64 columns.
  template <class Number>
  void arrange(const Number* k, const Number* v, int keys, int wide, Local& mine) const {
    const int e = shape.head_dim;
    if constexpr (std::is_same_v<Number, uint16_t>)
      if (e == wide) return arrange_whole(k, v, keys, mine);
    for (int j = 0; j < kTile; j++) {
      uint16_t* to = mine.keys.data() + size_t(j / kRows) * kRows * wide + 2 * (j % kRows);
      for (int i = 0; i < wide / 2; i++) {
        const bool there = j < keys && 2 * i < e;
        to[i * 2 * kRows] = there ? half_of(k[size_t(j) * e + 2 * i]) : 0;
        to[i * 2 * kRows + 1] = there ? half_of(k[size_t(j) * e + 2 * i + 1]) : 0;
      }
    }
    for (int j = 0; j < kTile; j++)
      for (int i = 0; i < wide; i++)
        mine.values[size_t(i / kRows) * kRows * kTile + (j / 2) * 2 * kRows + 2 * (i % kRows) + j % 2] =
            j < keys && i < e ? half_of(v[size_t(j) * e + i]) : 0;
  }

  // The same by registers: of keys, pairs of columns are turned; of values, two keys' columns are dealt out in turn.
  void arrange_whole(const uint16_t* k, const uint16_t* v, int keys, Local& mine) const {
    const int e = shape.head_dim;
    for (int j0 = 0; j0 < kTile; j0 += 16)
      for (int i = 0; i < e; i += 32) {
        Bits x[16];
        for (int j = 0; j < 16; j++)
          if (j0 + j < keys) std::memcpy(&x[j], k + size_t(j0 + j) * e + i, 64);
          else x[j] = Bits{};
        transpose(x);
        std::memcpy(mine.keys.data() + size_t(j0) * e + i * kRows, x, sizeof(x));
      }
    for (int j = 0; j < kTile; j += 2)
      for (int i = 0; i < e; i += 32) {
        Words a = {}, b = {};
        if (j < keys) std::memcpy(&a, v + size_t(j) * e + i, 64);
        if (j + 1 < keys) std::memcpy(&b, v + size_t(j + 1) * e + i, 64);
        const Words low = first_halves(a, b), high = second_halves(a, b);
        uint16_t* to = mine.values.data() + size_t(i) * kTile + j * kRows;
        std::memcpy(to, &low, 64), std::memcpy(to + size_t(kRows) * kTile, &high, 64);
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

void fill(Block* blocks, int bits) {
  blocks[1] = block_of<1>(bits), blocks[2] = block_of<2>(bits), blocks[3] = block_of<3>(bits);
  blocks[4] = block_of<4>(bits), blocks[5] = block_of<5>(bits), blocks[6] = block_of<6>(bits);
  blocks[7] = block_of<7>(bits), blocks[8] = block_of<8>(bits);
}

}  // namespace

extern "C" {

const char* midspan_instructions() {
#if defined(__AVX512VNNI__)
  return "avx512-vnni";
#elif defined(__AVX2__)
  return "avx2";
#else
  return "plain";
#endif
}

int midspan_has_tiles() {
  const bool tiles = tiles_begin();
  tiles_end();
  return tiles;
}

// Tokens of a step up to which a token's bits do not depend on its company.
int midspan_alike() { return kMany - 1; }

int midspan_max_tokens() { return midspan_has_tiles() ? kMaxTokens : kFew; }

void* midspan_open(const Shape* shape, const Layer* layers, const uint16_t* embedding, const float* last_norm,
                   const uint8_t* head) {
  auto* decoder = new Decoder;
  decoder->shape = *shape;
  decoder->layers.assign(layers, layers + shape->layers);
  decoder->embedding = embedding, decoder->last_norm = last_norm, decoder->head = head;
  fill(decoder->blocks, shape->bits), fill(decoder->blocks16, 16);
  const int q_size = shape->heads * shape->head_dim;
  const int all = q_size + 2 * shape->kv_heads * shape->head_dim;
  int widest = shape->hidden > shape->inner ? shape->hidden : shape->inner;
  widest = widest > q_size ? widest : q_size;
  decoder->x.resize(size_t(kMaxTokens) * shape->hidden);
  decoder->qkv.resize(size_t(kMaxTokens) * all);
  decoder->mid.resize(size_t(kMaxTokens) * shape->inner);
  decoder->parts.resize(size_t(shape->threads) * kFew * decoder->part_size());
  decoder->local.resize(shape->threads);
  decoder->tiles_allowed = midspan_has_tiles();
  const int deep = padded(widest, kDeep), wide = padded(shape->head_dim, 32), groups = shape->heads / shape->kv_heads;
  if (decoder->tiles_allowed) {
    decoder->many.resize(size_t(kQueries) * deep);
    decoder->queries.resize(size_t(kQueries) * shape->heads * wide);
    decoder->attended.resize(size_t(kMaxTokens) * q_size);
  }
  int rank = 0;
  for (const Layer& layer : decoder->layers)
    for (const Low& low : layer.low) rank = low.rank > rank ? int(low.rank) : rank;
  for (auto& one : decoder->local) {
    one.low.reserve(rank, kFew, false);
    one.tokens.reserve(widest, kFew, shape->bits != 16);
    one.queries.resize(size_t(kFew) * groups * shape->head_dim);
    one.scores.resize(size_t(shape->heads) * kTile), one.kept.resize(shape->heads);
    one.joined.resize(size_t(kFew) * (q_size > shape->hidden ? q_size : shape->hidden));
    if (!decoder->tiles_allowed) continue;
    const size_t panel = kPanel / 2 > size_t(2) * kRows * deep ? kPanel / 2 : size_t(2) * kRows * deep;
    one.panel.resize(panel), one.keys.resize(kTile * wide), one.values.resize(kTile * wide);
    one.rows.resize(size_t(padded(kMany * groups, 16)) * wide);
    one.shares.resize(32 * kTile), one.low_many.resize(size_t(kQueries) * rank);
    one.sums.resize(size_t(groups) * kRun * (wide + 2));
  }
  for (int i = 1; i < shape->threads; i++) decoder->workers.emplace_back([decoder, i] { decoder->work(i); });
  return decoder;
}

// Rows of the vocabulary that are not the base's, before the first step.
void midspan_rows(void* handle, const Rows* rows) { static_cast<Decoder*>(handle)->rows = *rows; }

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
