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
mod isa;
mod kernels;
mod kv_cache;
mod matmul;
mod moe;
mod norm;
#[allow(unsafe_code)]
mod pool;
mod rope;

pub use isa::{Isa, MissingIsa};
pub use kernels::Kernels;
pub use kv_cache::CpuKvPool;
pub use pool::{THREADS_MAX, ThreadPool};

use tensor::MatrixView;

use attention::AttentionScratch;
use gated_delta_net::{DeltaNetScratch, Form};
use matmul::MatmulScratch;
use moe::MoeScratch;
use ops::{
    Attention, AttentionShape, Backend, Combine, DeltaNet, ExpertRows, ExpertWeights, Footprint, HostMatrix,
    KvFormat, Mlp, Need, NormProducts, OpError, OutputProduct,
};
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
    ops: Kernels,
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
    /// Starts the threads.
    ///
    /// # Errors
    /// If the machine does not have the instruction set that is asked for.
    pub fn new(options: CpuOptions) -> Result<CpuBackend, MissingIsa> {
        let ops = options.isa.map_or_else(|| Ok(Kernels::best()), Kernels::new)?;
        let threads = match options.threads {
            0 => std::thread::available_parallelism().map_or(1, |threads| threads.get()),
            threads => threads,
        };
        let pool = ThreadPool::new(threads);
        let threads = pool.threads();
        Ok(CpuBackend {
            context: Context { pool, ops },
            matmul: MatmulScratch::new(threads),
            moe: MoeScratch::new(threads),
            rope: RopeScratch::new(threads),
            attention: AttentionScratch::new(threads),
            delta_net: DeltaNetScratch::new(threads),
        })
    }

    /// Threads that take part, the caller included.
    pub fn threads(&self) -> usize {
        self.context.pool.threads()
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.context.ops.isa()
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

/// Zeros, which the system gives memory for as they are first written.
fn zeroed<T: Clone + Default>(len: usize, what: &'static str) -> Result<Vec<T>, OpError> {
    let bytes = (len as u64).saturating_mul(size_of::<T>() as u64);
    // `vec!` ends the process where there is no room; this asks first.
    Vec::<T>::new().try_reserve_exact(len).map_err(|_| OpError::OutOfMemory { bytes, what })?;
    Ok(vec![T::default(); len])
}

/// Bytes that a gated MLP, or the experts of a layer, keep: both halves of the hidden layer, its product, and the input and
/// hidden rows in 8 bits.
fn mlp_bytes(hidden: usize, inner: usize, rows: usize) -> usize {
    rows * (4 * (3 * inner + hidden) + 2 * (inner + hidden))
}

impl Backend for CpuBackend {
    type Buffer = CpuBuffer;
    type Matrix = CpuMatrix;
    type KvPool = CpuKvPool;

    fn footprint(&self, need: &Need<'_>) -> Footprint {
        let host_bytes = match *need {
            Need::Buffer(len) => (size_of::<f32>() * len) as u64,
            Need::Matrix(_) => 0, // Used where the caller has it.
            Need::KvPool { format, shape, pages } => CpuKvPool::bytes(format, shape, pages),
            Need::Attention { shape, format } => {
                attention::scratch_bytes(shape, format, self.threads()) as u64
            }
            Need::Mlp { hidden, inner, rows } => mlp_bytes(hidden, inner, rows) as u64,
        };
        Footprint { host_bytes, device_bytes: 0 }
    }

    fn buffer(&mut self, len: usize) -> Result<CpuBuffer, OpError> {
        Ok(CpuBuffer(zeroed(len, "activations")?))
    }

    fn matrix(&mut self, data: HostMatrix) -> Result<CpuMatrix, OpError> {
        data.view();
        Ok(CpuMatrix(data))
    }

    fn kv_pool(
        &mut self,
        format: KvFormat,
        shape: &AttentionShape,
        pages: usize,
    ) -> Result<CpuKvPool, OpError> {
        CpuKvPool::new(format, shape, pages)
    }

    fn write(&mut self, dst: &mut CpuBuffer, at: usize, src: &[f32]) {
        dst.0[at..][..src.len()].copy_from_slice(src);
    }

    fn read_with<T>(
        &mut self,
        src: &CpuBuffer,
        at: usize,
        len: usize,
        reader: impl FnOnce(&[f32]) -> T,
    ) -> Result<T, OpError> {
        Ok(reader(&src.0[at..][..len]))
    }

    fn clear(&mut self, dst: &mut CpuBuffer, at: usize, len: usize) {
        dst.0[at..][..len].fill(0.0);
    }

    fn copy(&mut self, src: &CpuBuffer, src_at: usize, dst: &mut CpuBuffer, dst_at: usize, len: usize) {
        dst.0[dst_at..][..len].copy_from_slice(&src.0[src_at..][..len]);
    }

    fn copy_within(&mut self, buffer: &mut CpuBuffer, from: usize, to: usize, len: usize) {
        buffer.0.copy_within(from..from + len, to);
    }

    fn copy_page(&mut self, pool: &mut CpuKvPool, from: usize, to: usize, tokens: usize) {
        pool.copy_page(from, to, tokens);
    }

    fn read_page(&mut self, pool: &CpuKvPool, page: usize, out: &mut Vec<u8>) -> Result<(), OpError> {
        pool.read_page(page, out);
        Ok(())
    }

    fn write_page(&mut self, pool: &mut CpuKvPool, page: usize, bytes: &[u8]) {
        pool.write_page(page, bytes);
    }

    fn get_rows(&mut self, table: &CpuMatrix, ids: &[u32], out: &mut CpuBuffer, at: usize) {
        let table = table.view();
        matmul::get_rows(&mut self.context, table, ids, &mut out.0[at * table.cols..]);
    }

    fn norm_products<const N: usize>(&mut self, op: NormProducts<'_, Self, N>) {
        let NormProducts { x, norm, n, h, products } = op;
        let context = &mut self.context;
        norm::rms_norm(context, (&x.0, &norm.weight.0), norm.eps, n, norm.dim, &mut h.0);
        let products = products.map(|(w, out)| (w.view(), out.0.as_mut_slice()));
        matmul::mul_mats(context, &mut self.matmul, products, &h.0, n);
    }

    fn attention(&mut self, op: Attention<'_, Self>) {
        let Attention { shape, batch, biases, norms, rope_factors, qg, k, v, keys, values, out } = op;
        let (context, n) = (&mut self.context, batch.n);
        let kv_len = shape.kv_heads * shape.head_dim;
        let q_len = shape.heads * shape.query_len();
        if let Some([q_bias, k_bias, v_bias]) = biases {
            elementwise::add_bias(context, &q_bias.0, n, q_len, &mut qg.0);
            elementwise::add_bias(context, &k_bias.0, n, kv_len, &mut k.0);
            elementwise::add_bias(context, &v_bias.0, n, kv_len, &mut v.0);
        }
        let [q_norm, k_norm] = [0, 1].map(|which| norms.map(|norms| &norms[which].0[..]));
        let factors = rope_factors.map(|factors| &factors.0[..shape.rotary_dim / 2]);
        self.rope.set_up(shape, factors, batch);
        rope::queries(context, &mut self.rope, shape, q_norm, &mut qg.0);
        rope::keys(context, &mut self.rope, shape, k_norm, &mut k.0);
        keys.store(context, batch, &k.0);
        values.store(context, batch, &v.0);
        let out_len = shape.heads * shape.head_dim;
        for rows in batch.rows {
            let inputs = attention::Inputs {
                shape,
                pages: batch.pages_of(rows),
                pos: rows.pos(),
                n: rows.len(),
                qg: &qg.0[rows.first() * q_len..],
                k_cache: keys,
                v_cache: values,
            };
            let out = &mut out.0[rows.first() * out_len..];
            attention::gated_attention(context, &mut self.attention, &inputs, out);
        }
    }

    fn delta_net(&mut self, op: DeltaNet<'_, Self>) {
        let DeltaNet { shape, batch, u, conv, b, a, a_neg, dt_bias, conv_states, states, qkv, out } = op;
        let (channels, heads) = (shape.conv_channels(), shape.value_heads);
        let (past_len, state_len) = ((shape.conv_kernel - 1) * channels, shape.state_len());
        for rows in batch.rows {
            let (first, n, context) = (rows.first(), rows.len(), &mut self.context);
            let past = &mut conv_states.0[rows.state() * past_len..][..past_len];
            let u = &u.0[first * channels..];
            conv::conv1d_silu(context, shape, n, (&conv.0, u), past, &mut qkv.0[first * channels..]);
            let inputs = gated_delta_net::Inputs {
                shape,
                n,
                pos: rows.pos(),
                qkv: &qkv.0[first * channels..],
                a: &a.0[first * heads..],
                b: &b.0[first * heads..],
                a_neg: &a_neg.0,
                dt_bias: &dt_bias.0,
            };
            let form = if rows.chunked { Form::Chunked } else { Form::Recurrent };
            let state = &mut states.0[rows.state() * state_len..][..state_len];
            let out = &mut out.0[first * shape.value_len()..];
            gated_delta_net::run(context, &mut self.delta_net, &inputs, form, state, out);
            if let Some(keep) = rows.keep {
                for (pool, len) in [(&mut conv_states.0, past_len), (&mut states.0, state_len)] {
                    let from = rows.state() * len;
                    pool.copy_within(from..from + len, keep as usize * len);
                }
            }
        }
    }

    fn output_product(&mut self, op: OutputProduct<'_, Self>) {
        let OutputProduct { gated_norm, input, w, bias, n, hidden, product, x } = op;
        let context = &mut self.context;
        if let Some(gated) = gated_norm {
            let (norm, weights) = (gated.norm, (&gated.z.0[..], &gated.norm.weight.0[..]));
            norm::gated_rms_norm(context, weights, norm.eps, gated.rows, norm.dim, &mut input.0);
        }
        let products = [(w.view(), product.0.as_mut_slice())];
        matmul::mul_mats(context, &mut self.matmul, products, &input.0, n);
        if let Some(bias) = bias {
            elementwise::add_bias(context, &bias.0, n, hidden, &mut product.0);
        }
        elementwise::add(context, &product.0[..n * hidden], &mut x.0[..n * hidden]);
    }

    fn mlp(&mut self, op: Mlp<'_, Self>) {
        let weights = ExpertWeights { gate: op.gate.view(), up: op.up.view(), down: op.down.view() };
        let gate_row = op.gate_row.map(CpuMatrix::view);
        let (x, out) = (&op.x.0, &mut op.out.0);
        moe::shared_expert(&mut self.context, &mut self.moe, weights, gate_row, x, op.n, out);
    }

    fn add(&mut self, y: &CpuBuffer, len: usize, x: &mut CpuBuffer) {
        elementwise::add(&mut self.context, &y.0[..len], &mut x.0[..len]);
    }

    fn experts(&mut self, experts: &[ExpertRows<'_>], x: &CpuBuffer, out: &mut CpuBuffer) {
        moe::experts(&mut self.context, &mut self.moe, experts, &x.0, &mut out.0);
    }

    fn combine(&mut self, op: Combine<'_, Self>) {
        let Combine { weights, routed, shared, n, k_len, dim, x } = op;
        let shared = shared.map(|shared| &shared.0[..]);
        let inputs = moe::Outputs { weights, routed: &routed.0, shared, k_len, dim };
        moe::moe_combine(&mut self.context, &inputs, n, &mut x.0);
    }
}
