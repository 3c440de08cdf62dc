// The backward pass of causal attention, one document and one head at a time.
//
// For a block of 64 keys j and one of 64 queries i, everything lies transposed, keys down and queries across, so that
// a row of P^T and dS^T meets log-sum-exp and row sums as vectors:
//
//     S^T = K_j Q_i^T     P^T = exp(S^T - lse)     dP^T = V_j dO_i^T     dS^T = P^T (dP^T - D)
//     dV_j += P^T dO_i    dK_j += dS^T Q_i         dQ_i^T += K_j^T dS^T
//
// All five products are "rows of A times pairs of rows of B" (what AMX and AVX512-BF16 multiply): float32 sums of
// bfloat16 pairs. A processor without either gets no kernel here, and torch's.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <immintrin.h>
#include <omp.h>
#include <sys/syscall.h>
#include <unistd.h>

using bf16 = uint16_t;
using i64 = int64_t;

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#define MIDSPAN_PAIRS 1
#else
#define MIDSPAN_PAIRS 0
#endif

namespace {

constexpr i64 BLOCK = 64;

inline float up(bf16 x) {
    uint32_t bits = static_cast<uint32_t>(x) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline bf16 down(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return static_cast<bf16>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

#if MIDSPAN_PAIRS

#if defined(__AMX_BF16__)
struct alignas(64) TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t bytes[16] = {};
    uint8_t rows[16] = {};
};

bool tiles_allowed() { return syscall(SYS_arch_prctl, 0x1023 /* ARCH_REQ_XCOMP_PERM */, 18) == 0; }

void begin_tiles() {  // eight of 16 rows of 64 bytes; each thread needs its own
    TileConfig config;
    for (int tile = 0; tile < 8; tile++) config.bytes[tile] = 64, config.rows[tile] = 16;
    _tile_loadconfig(&config);
}

// C (m, n) = A (m, k) B (k, n), added to what is there if `add`; B as pairs of rows; m, n and k multiples of 32.
void multiply_tiles(const bf16* a, i64 lda, const uint32_t* b, i64 ldb, float* c, i64 ldc, i64 m, i64 n, i64 k,
                    bool add) {
    for (i64 row = 0; row < m; row += 32)
        for (i64 column = 0; column < n; column += 32) {
            float* corner = c + row * ldc + column;
            if (add) {
                _tile_loadd(0, corner, ldc * 4);
                _tile_loadd(1, corner + 16, ldc * 4);
                _tile_loadd(2, corner + 16 * ldc, ldc * 4);
                _tile_loadd(3, corner + 16 * ldc + 16, ldc * 4);
            } else {
                _tile_zero(0);
                _tile_zero(1);
                _tile_zero(2);
                _tile_zero(3);
            }
            for (i64 depth = 0; depth < k; depth += 32) {
                _tile_loadd(4, a + row * lda + depth, lda * 2);
                _tile_loadd(5, a + (row + 16) * lda + depth, lda * 2);
                _tile_loadd(6, b + depth / 2 * ldb + column, ldb * 4);
                _tile_loadd(7, b + depth / 2 * ldb + column + 16, ldb * 4);
                _tile_dpbf16ps(0, 4, 6);
                _tile_dpbf16ps(1, 4, 7);
                _tile_dpbf16ps(2, 5, 6);
                _tile_dpbf16ps(3, 5, 7);
            }
            _tile_stored(0, corner, ldc * 4);
            _tile_stored(1, corner + 16, ldc * 4);
            _tile_stored(2, corner + 16 * ldc, ldc * 4);
            _tile_stored(3, corner + 16 * ldc + 16, ldc * 4);
        }
}
#endif

void multiply_vectors(const bf16* a, i64 lda, const uint32_t* b, i64 ldb, float* c, i64 ldc, i64 m, i64 n, i64 k,
                      bool add) {
    for (i64 row = 0; row < m; row += 8)
        for (i64 column = 0; column < n; column += 32) {
            __m512 sums[8][2];
            for (int r = 0; r < 8; r++)
                for (int v = 0; v < 2; v++)
                    sums[r][v] = add ? _mm512_loadu_ps(c + (row + r) * ldc + column + 16 * v) : _mm512_setzero_ps();
            for (i64 pair = 0; pair < k / 2; pair++) {
                const __m512bh b0 = (__m512bh)_mm512_loadu_si512(b + pair * ldb + column);
                const __m512bh b1 = (__m512bh)_mm512_loadu_si512(b + pair * ldb + column + 16);
                for (int r = 0; r < 8; r++) {
                    int32_t two;
                    std::memcpy(&two, a + (row + r) * lda + 2 * pair, 4);
                    const __m512bh both = (__m512bh)_mm512_set1_epi32(two);
                    sums[r][0] = _mm512_dpbf16_ps(sums[r][0], both, b0);
                    sums[r][1] = _mm512_dpbf16_ps(sums[r][1], both, b1);
                }
            }
            for (int r = 0; r < 8; r++)
                for (int v = 0; v < 2; v++) _mm512_storeu_ps(c + (row + r) * ldc + column + 16 * v, sums[r][v]);
        }
}

struct Multiply {
    bool tiles = false;
    void operator()(const bf16* a, i64 lda, const uint32_t* b, i64 ldb, float* c, i64 ldc, i64 m, i64 n, i64 k,
                    bool add) const {
#if defined(__AMX_BF16__)
        if (tiles) return multiply_tiles(a, lda, b, ldb, c, ldc, m, n, k, add);
#endif
        multiply_vectors(a, lda, b, ldb, c, ldc, m, n, k, add);
    }
};

// e^x of sixteen numbers up to about 0, to 2 units in the last place.
inline __m512 exponential(__m512 x) {
    x = _mm512_max_ps(x, _mm512_set1_ps(-87.0f));
    const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), 8);
    __m512 r = _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.3981999507e-3f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_fmadd_ps(_mm512_mul_ps(p, r), r, _mm512_add_ps(r, _mm512_set1_ps(1.0f)));
    return _mm512_scalef_ps(p, n);
}

inline __m512i rounded(__m512 x) {  // bfloat16 in the low half of each lane
    const __m512i bits = _mm512_castps_si512(x);
    const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(bits, 16), _mm512_set1_epi32(1));
    return _mm512_srli_epi32(_mm512_add_epi32(_mm512_add_epi32(bits, odd), _mm512_set1_epi32(0x7fff)), 16);
}

inline void store(bf16* target, __m512i lanes) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(target), _mm512_cvtepi32_epi16(lanes));
}

// Rows (length, dim) of a stride as pairs of rows (length / 2, dim), and as pairs of columns (dim / 2, length) of each
// block; zeros where rows end.
void pack(const bf16* x, i64 stride, i64 length, i64 padded, i64 dim, uint32_t* __restrict pairs,
          uint32_t* __restrict turned) {
    for (i64 row = 0; row < padded; row += 2) {
        const bf16 *__restrict first = x + row * stride, *__restrict second = first + stride;
        uint32_t* target = pairs + row / 2 * dim;
        if (row + 1 < length)
            for (i64 i = 0; i < dim; i++) target[i] = first[i] | static_cast<uint32_t>(second[i]) << 16;
        else
            for (i64 i = 0; i < dim; i++) target[i] = row < length ? first[i] : 0;
    }
    const __m512i places = _mm512_mullo_epi32(_mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15),
                                              _mm512_set1_epi32(static_cast<int>(stride / 2)));
    for (i64 row = 0; row < padded; row += 16) {
        const i64 left = length - row;
        const __mmask16 there = left >= 16 ? 0xffff : left <= 0 ? 0 : (1 << left) - 1;
        uint32_t* target = turned + row / BLOCK * BLOCK * dim / 2 + row % BLOCK;
        for (i64 i = 0; i < dim / 2; i++)
            _mm512_storeu_si512(target + i * BLOCK, _mm512_mask_i32gather_epi32(_mm512_setzero_si512(), there, places,
                                                                                x + row * stride + 2 * i, 4));
    }
}

// One head of one document.
void backward(const Multiply& multiply, const bf16* q, i64 q_row, const bf16* k, i64 k_row, const bf16* v, i64 v_row,
              const bf16* out, i64 out_row, const bf16* grad, i64 grad_row, const float* lse, bf16* grad_q,
              bf16* grad_k, bf16* grad_v, i64 grads_row, i64 length, i64 dim, float scale, char* memory) {
    const i64 blocks = (length + BLOCK - 1) / BLOCK, padded = blocks * BLOCK;
    auto take = [&memory](i64 bytes) {
        char* start = memory;
        memory += (bytes + 63) / 64 * 64;
        return start;
    };
    auto* q_pairs = reinterpret_cast<uint32_t*>(take(padded * dim * 2));
    auto* q_turned = reinterpret_cast<uint32_t*>(take(padded * dim * 2));
    auto* grad_pairs = reinterpret_cast<uint32_t*>(take(padded * dim * 2));
    auto* grad_turned = reinterpret_cast<uint32_t*>(take(padded * dim * 2));
    auto* q_sum = reinterpret_cast<float*>(take(padded * dim * 4));  // blocks of dQ^T (dim, 64)
    auto* own_lse = reinterpret_cast<float*>(take(padded * 4));
    auto* dots = reinterpret_cast<float*>(take(padded * 4));
    auto* k_block = reinterpret_cast<bf16*>(take(BLOCK * dim * 2));
    auto* v_block = reinterpret_cast<bf16*>(take(BLOCK * dim * 2));
    auto* k_turned = reinterpret_cast<bf16*>(take(BLOCK * dim * 2));  // (dim, 64)
    auto* scores = reinterpret_cast<float*>(take(BLOCK * BLOCK * 4));
    auto* grad_scores = reinterpret_cast<float*>(take(BLOCK * BLOCK * 4));
    auto* p = reinterpret_cast<bf16*>(take(BLOCK * BLOCK * 2));
    auto* ds = reinterpret_cast<bf16*>(take(BLOCK * BLOCK * 2));
    auto* ds_pairs = reinterpret_cast<uint32_t*>(take(BLOCK * BLOCK * 2));
    auto* k_sum = reinterpret_cast<float*>(take(BLOCK * dim * 4));
    auto* v_sum = reinterpret_cast<float*>(take(BLOCK * dim * 4));

    pack(q, q_row, length, padded, dim, q_pairs, q_turned);
    pack(grad, grad_row, length, padded, dim, grad_pairs, grad_turned);
    for (i64 row = 0; row < padded; row++) {
        float dot = 0;
        if (row < length) {
            const bf16 *g = grad + row * grad_row, *o = out + row * out_row;
#pragma omp simd reduction(+ : dot)
            for (i64 i = 0; i < dim; i++) dot += up(g[i]) * up(o[i]);
        }
        dots[row] = dot;
        own_lse[row] = row < length ? lse[row] : 1e30f;
    }
    const __m512 scale_ps = _mm512_set1_ps(scale);
    for (i64 j = 0; j < blocks; j++) {
        for (i64 row = 0; row < BLOCK; row++) {
            const i64 key = j * BLOCK + row;
            for (i64 i = 0; i < dim; i++) {
                k_block[row * dim + i] = key < length ? k[key * k_row + i] : 0;
                v_block[row * dim + i] = key < length ? v[key * v_row + i] : 0;
                k_turned[i * BLOCK + row] = k_block[row * dim + i];
            }
        }
        for (i64 i = j; i < blocks; i++) {
            const i64 turned = i * BLOCK * dim / 2, pairs = turned;
            multiply(k_block, dim, q_turned + turned, BLOCK, scores, BLOCK, BLOCK, BLOCK, dim, false);
            multiply(v_block, dim, grad_turned + turned, BLOCK, grad_scores, BLOCK, BLOCK, BLOCK, dim, false);
            for (i64 key = 0; key < BLOCK; key += 2)
                for (i64 query = 0; query < BLOCK; query += 16) {
                    const __m512 minus = _mm512_loadu_ps(own_lse + i * BLOCK + query);
                    const __m512 dot = _mm512_loadu_ps(dots + i * BLOCK + query);
                    __m512i halves[2];
                    for (int odd = 0; odd < 2; odd++) {
                        const i64 at = (key + odd) * BLOCK + query;
                        __m512 chance =
                            exponential(_mm512_fmsub_ps(_mm512_loadu_ps(scores + at), scale_ps, minus));
                        if (i == j) {  // a query sees keys up to its own
                            const i64 unseen = key + odd - query;  // this many queries of the vector come before
                            const __mmask16 seen = unseen <= 0 ? 0xffff : unseen >= 16 ? 0 : 0xffff << unseen;
                            chance = _mm512_maskz_mov_ps(seen, chance);
                        }
                        store(p + at, rounded(chance));
                        const __m512 change = _mm512_sub_ps(_mm512_loadu_ps(grad_scores + at), dot);
                        halves[odd] = rounded(_mm512_mul_ps(_mm512_mul_ps(chance, change), scale_ps));
                        store(ds + at, halves[odd]);
                    }
                    _mm512_storeu_si512(ds_pairs + key / 2 * BLOCK + query,
                                        _mm512_or_si512(halves[0], _mm512_slli_epi32(halves[1], 16)));
                }
            multiply(p, BLOCK, grad_pairs + pairs, dim, v_sum, dim, BLOCK, dim, BLOCK, i > j);
            multiply(ds, BLOCK, q_pairs + pairs, dim, k_sum, dim, BLOCK, dim, BLOCK, i > j);
            multiply(k_turned, BLOCK, ds_pairs, BLOCK, q_sum + i * BLOCK * dim, BLOCK, dim, BLOCK, BLOCK, j > 0);
        }
        for (i64 row = 0; row < BLOCK && j * BLOCK + row < length; row++)
            for (i64 i = 0; i < dim; i++) {
                grad_k[(j * BLOCK + row) * grads_row + i] = down(k_sum[row * dim + i]);
                grad_v[(j * BLOCK + row) * grads_row + i] = down(v_sum[row * dim + i]);
            }
    }
    for (i64 row = 0; row < length; row++)
        for (i64 i = 0; i < dim; i++)
            grad_q[row * grads_row + i] = down(q_sum[row / BLOCK * BLOCK * dim + i * BLOCK + row % BLOCK]);
}

#endif

}  // namespace

extern "C" {

// Bytes of scratch that one thread needs for documents up to `length`; 0 where there is no kernel for this processor.
i64 midspan_attention_scratch(i64 length, i64 dim) {
    if (!MIDSPAN_PAIRS || dim % 32) return 0;
    const i64 padded = (length + BLOCK - 1) / BLOCK * BLOCK;
    return padded * dim * 12 + padded * 8 + BLOCK * dim * 14 + BLOCK * BLOCK * 14 + 64 * 17;
}

// Gradients (tokens, heads, dim) of queries, and of keys and values as each query head sees them.
void midspan_attention_backward(const bf16* q, const bf16* k, const bf16* v, const i64* strides, const bf16* out,
                                const bf16* grad, const float* lse, const i64* bounds, i64 documents, i64 heads,
                                i64 groups, i64 dim, i64 tokens, bf16* grad_q, bf16* grad_k, bf16* grad_v, float scale,
                                char* scratch, i64 scratch_bytes, i64 threads) {
#if MIDSPAN_PAIRS
    Multiply multiply;
#if defined(__AMX_BF16__)
    multiply.tiles = tiles_allowed();
#endif
#pragma omp parallel num_threads(threads)
    {
#if defined(__AMX_BF16__)
        if (multiply.tiles) begin_tiles();
#endif
        const unsigned before = _mm_getcsr();
        _mm_setcsr(before | 0x8040);  // numbers below the smallest normal one are zeros: chances often are
#pragma omp for schedule(dynamic)
        for (i64 unit = 0; unit < documents * heads; unit++) {
            const i64 document = unit / heads, head = unit % heads, shared = head / groups;
            const i64 start = bounds[document], length = bounds[document + 1] - start;
            const i64 at = (start * heads + head) * dim;
            backward(multiply, q + start * strides[0] + head * strides[1], strides[0],
                     k + start * strides[2] + shared * strides[3], strides[2],
                     v + start * strides[4] + shared * strides[5], strides[4], out + at, heads * dim, grad + at,
                     heads * dim, lse + head * tokens + start, grad_q + at, grad_k + at, grad_v + at, heads * dim,
                     length, dim, scale, scratch + omp_get_thread_num() * scratch_bytes);
        }
        _mm_setcsr(before);
#if defined(__AMX_BF16__)
        if (multiply.tiles) _tile_release();
#endif
    }
#endif
}
}
