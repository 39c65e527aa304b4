//! The ops on the CPU ([`ops::Backend`]): a thread pool, and instruction sets chosen at run time.
//!
//! * One file per family of ops. [`CpuBackend`] itself only hands out what they need: the thread pool, the loops of the
//!   chosen instruction set, and scratch memory that is kept between ops, so that an op repeated with the same shapes
//!   allocates nothing.
//! * [`dot`]: products of quantised weight rows with activation rows, where nearly all of the time goes.
//!
//! A result does not depend on the number of threads: each output element belongs to one task, which sums in a fixed
//! order. Unsafe code is confined to the thread pool (`pool`) and the intrinsics (`arch`).
#![deny(unsafe_code)]

#[allow(unsafe_code)]
pub(crate) mod arch;
mod attention;
mod batch;
mod conv;
pub mod dot;
mod elementwise;
mod f32_ops;
mod gated_delta_net;
mod kv_cache;
mod matmul;
mod moe;
mod norm;
#[allow(unsafe_code)]
mod pool;
mod rope;

pub use attention::scratch_bytes as attention_scratch_bytes;
pub use kv_cache::CpuKvCache;
pub use pool::{THREADS_MAX, ThreadPool};

use tensor::MatrixView;

use attention::AttentionScratch;
use dot::Isa;
use f32_ops::F32Ops;
use gated_delta_net::DeltaNetScratch;
use matmul::MatmulScratch;
use moe::MoeScratch;
use ops::{AttentionShape, Backend, DeltaNetShape, ExpertRows, ExpertWeights, HostMatrix, KvFormat};
use rope::RopeScratch;

/// How the CPU back-end runs. None of it changes a result except `isa`, which may change rounding.
#[derive(Copy, Clone, Debug, Default)]
pub struct CpuOptions {
    /// Threads, the caller included; 0 takes as many as the system offers.
    pub threads: usize,
    /// Instruction set; `None` takes the best that the machine has.
    pub isa: Option<Isa>,
}

/// f32 values in memory.
#[derive(Clone, Debug, Default)]
pub struct CpuBuffer(Vec<f32>);

impl CpuBuffer {
    /// All values.
    pub fn as_slice(&self) -> &[f32] {
        &self.0
    }

    /// All values.
    pub fn as_mut_slice(&mut self) -> &mut [f32] {
        &mut self.0
    }
}

/// A dense matrix whose bytes are used where they lie.
#[derive(Clone)]
pub struct CpuMatrix(HostMatrix);

impl CpuMatrix {
    /// The matrix, borrowed.
    pub fn view(&self) -> MatrixView<'_> {
        self.0.view()
    }
}

/// Everything that an op works with besides its operands.
struct Context {
    pool: ThreadPool,
    isa: Isa,
    ops: F32Ops,
}

/// The ops on the CPU; see the module's documentation.
pub struct CpuBackend {
    context: Context,
    matmul: MatmulScratch,
    moe: MoeScratch,
    rope: RopeScratch,
    attention: AttentionScratch,
    delta_net: DeltaNetScratch,
}

impl CpuBackend {
    /// Starts the threads. An instruction set that the machine lacks is replaced by the
    /// best that it has.
    pub fn new(options: CpuOptions) -> CpuBackend {
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, |threads| threads.get()),
            threads => threads,
        };
        let isa = options.isa.filter(|isa| isa.is_available()).unwrap_or_else(Isa::detect);
        let pool = ThreadPool::new(threads);
        let threads = pool.threads();
        CpuBackend {
            context: Context { pool, isa, ops: F32Ops::new(isa) },
            matmul: MatmulScratch::new(threads),
            moe: MoeScratch::new(threads),
            rope: RopeScratch::new(threads),
            attention: AttentionScratch::new(threads),
            delta_net: DeltaNetScratch::new(threads),
        }
    }

    /// Threads that take part, the caller included.
    pub fn threads(&self) -> usize {
        self.context.pool.threads()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.context.isa
    }
}

/// The first `len` floats of scratch that only ever grows. Their values are left over from earlier
/// ops.
fn scratch(memory: &mut Vec<f32>, len: usize) -> &mut [f32] {
    if memory.len() < len {
        memory.resize(len, 0.0);
    }
    &mut memory[..len]
}

/// Lets each thread's scratch hold `len` floats. Done before a job, because which threads get tasks
/// of it is left open: an op is warm after one call, not after every thread has had a turn.
fn grow_all(memories: &mut [Vec<f32>], len: usize) {
    memories.iter_mut().for_each(|memory| {
        scratch(memory, len);
    });
}

impl Backend for CpuBackend {
    type Buffer = CpuBuffer;
    type Matrix = CpuMatrix;
    type KvCache = CpuKvCache;

    fn buffer(&mut self, len: usize) -> CpuBuffer {
        CpuBuffer(vec![0.0; len])
    }

    fn write(&mut self, dst: &mut CpuBuffer, at: usize, src: &[f32]) {
        dst.0[at..][..src.len()].copy_from_slice(src);
    }

    fn read(&mut self, src: &CpuBuffer, at: usize, dst: &mut [f32]) {
        dst.copy_from_slice(&src.0[at..][..dst.len()]);
    }

    fn clear(&mut self, dst: &mut CpuBuffer) {
        dst.0.fill(0.0);
    }

    fn copy(&mut self, src: &CpuBuffer, src_at: usize, dst: &mut CpuBuffer, dst_at: usize, len: usize) {
        dst.0[dst_at..][..len].copy_from_slice(&src.0[src_at..][..len]);
    }

    fn matrix(&mut self, data: HostMatrix) -> CpuMatrix {
        data.view();
        CpuMatrix(data)
    }

    fn kv_cache(&mut self, format: KvFormat, shape: &AttentionShape, ctx: usize) -> CpuKvCache {
        CpuKvCache::new(format, shape, ctx)
    }

    fn read_kv(&mut self, src: &CpuKvCache, row: usize, dst: &mut [f32]) {
        src.read(self.context.ops, row, dst);
    }

    fn get_rows(&mut self, table: &CpuMatrix, ids: &[u32], out: &mut CpuBuffer) {
        matmul::get_rows(&mut self.context, table.view(), ids, &mut out.0);
    }

    fn rms_norm(
        &mut self,
        x: &CpuBuffer,
        weight: &CpuBuffer,
        eps: f32,
        n: usize,
        dim: usize,
        out: &mut CpuBuffer,
    ) {
        norm::rms_norm(&mut self.context, (&x.0, &weight.0), eps, n, dim, &mut out.0);
    }

    fn mul_mat(&mut self, w: &CpuMatrix, x: &CpuBuffer, n: usize, out: &mut CpuBuffer) {
        matmul::mul_mats(&mut self.context, &mut self.matmul, [(w.view(), out.0.as_mut_slice())], &x.0, n);
    }

    fn mul_mats<const N: usize>(
        &mut self,
        products: [(&CpuMatrix, &mut CpuBuffer); N],
        x: &CpuBuffer,
        n: usize,
    ) {
        let products = products.map(|(w, out)| (w.view(), out.0.as_mut_slice()));
        matmul::mul_mats(&mut self.context, &mut self.matmul, products, &x.0, n);
    }

    fn add_bias(&mut self, bias: &CpuBuffer, n: usize, dim: usize, out: &mut CpuBuffer) {
        elementwise::add_bias(&mut self.context, &bias.0, n, dim, &mut out.0);
    }

    fn add(&mut self, y: &CpuBuffer, len: usize, x: &mut CpuBuffer) {
        elementwise::add(&mut self.context, &y.0[..len], &mut x.0[..len]);
    }

    fn qk_norm_rope_store(
        &mut self,
        shape: &AttentionShape,
        pos: usize,
        n: usize,
        norms: Option<[&CpuBuffer; 2]>,
        rope_factors: Option<&CpuBuffer>,
        qg: &mut CpuBuffer,
        k: &mut CpuBuffer,
        v: &CpuBuffer,
        k_cache: &mut CpuKvCache,
        v_cache: &mut CpuKvCache,
    ) {
        let [q_norm, k_norm] = [0, 1].map(|which| norms.map(|norms| &norms[which].0[..]));
        self.rope.set_up(shape, rope_factors.map(|factors| &factors.0[..shape.rotary_dim / 2]));
        rope::queries(&mut self.context, &mut self.rope, shape, pos, n, q_norm, &mut qg.0);
        rope::keys(&mut self.context, &mut self.rope, shape, pos, n, k_norm, &mut k.0);
        let len = n * shape.kv_heads * shape.head_dim;
        k_cache.store(&mut self.context, pos, &k.0[..len]);
        v_cache.store(&mut self.context, pos, &v.0[..len]);
    }

    fn gated_attention(
        &mut self,
        shape: &AttentionShape,
        pos: usize,
        n: usize,
        qg: &CpuBuffer,
        k_cache: &CpuKvCache,
        v_cache: &CpuKvCache,
        out: &mut CpuBuffer,
    ) {
        let inputs = attention::Inputs { shape, pos, n, qg: &qg.0, k_cache, v_cache };
        attention::gated_attention(&mut self.context, &mut self.attention, &inputs, &mut out.0);
    }

    fn conv1d_silu(
        &mut self,
        shape: &DeltaNetShape,
        n: usize,
        weight: &CpuBuffer,
        u: &CpuBuffer,
        state: &mut CpuBuffer,
        out: &mut CpuBuffer,
    ) {
        conv::conv1d_silu(&mut self.context, shape, n, (&weight.0, &u.0), &mut state.0, &mut out.0);
    }

    fn gated_delta_net(
        &mut self,
        shape: &DeltaNetShape,
        n: usize,
        qkv: &CpuBuffer,
        a: &CpuBuffer,
        b: &CpuBuffer,
        a_neg: &CpuBuffer,
        dt_bias: &CpuBuffer,
        state: &mut CpuBuffer,
        out: &mut CpuBuffer,
    ) {
        let inputs = gated_delta_net::Inputs {
            shape,
            n,
            qkv: &qkv.0,
            a: &a.0,
            b: &b.0,
            a_neg: &a_neg.0,
            dt_bias: &dt_bias.0,
        };
        let form = gated_delta_net::Form::for_tokens(n);
        gated_delta_net::run(&mut self.context, &mut self.delta_net, &inputs, form, &mut state.0, &mut out.0);
    }

    fn gated_rms_norm(
        &mut self,
        z: &CpuBuffer,
        weight: &CpuBuffer,
        eps: f32,
        rows: usize,
        dim: usize,
        o: &mut CpuBuffer,
    ) {
        norm::gated_rms_norm(&mut self.context, (&z.0, &weight.0), eps, rows, dim, &mut o.0);
    }

    fn shared_expert(
        &mut self,
        gate: &CpuMatrix,
        up: &CpuMatrix,
        down: &CpuMatrix,
        gate_row: Option<&CpuMatrix>,
        x: &CpuBuffer,
        n: usize,
        out: &mut CpuBuffer,
    ) {
        let weights = ExpertWeights { gate: gate.view(), up: up.view(), down: down.view() };
        let gate_row = gate_row.map(CpuMatrix::view);
        moe::shared_expert(&mut self.context, &mut self.moe, weights, gate_row, &x.0, n, &mut out.0);
    }

    fn experts(&mut self, experts: &[ExpertRows<'_>], x: &CpuBuffer, out: &mut CpuBuffer) {
        moe::experts(&mut self.context, &mut self.moe, experts, &x.0, &mut out.0);
    }

    fn moe_combine(
        &mut self,
        weights: &[f32],
        routed: &CpuBuffer,
        shared: &CpuBuffer,
        n: usize,
        k_len: usize,
        dim: usize,
        x: &mut CpuBuffer,
    ) {
        let inputs = moe::Outputs { weights, routed: &routed.0, shared: &shared.0, k_len, dim };
        moe::moe_combine(&mut self.context, &inputs, n, &mut x.0);
    }
}
