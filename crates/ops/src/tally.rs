//! A back-end that only counts: memory is planned by running the code that allocates it.

use crate::{
    Attention, AttentionShape, Backend, Combine, DeltaNet, ExpertRows, Footprint, HostMatrix, KvFormat, Mlp,
    Need, NormProducts, OpError, OutputProduct,
};

/// Adds up what another back-end would take for the buffers, matrices and pools that it is asked for. It has no values: ops
/// do nothing, and a readback gives zeros.
pub struct Tally<'a, B> {
    backend: &'a B,
    /// Asked for so far.
    pub footprint: Footprint,
}

impl<'a, B: Backend> Tally<'a, B> {
    /// Nothing was asked for.
    pub fn new(backend: &'a B) -> Self {
        Self { backend, footprint: Footprint::default() }
    }

    /// Counts a need that is no call of the contract, such as memory that ops keep.
    pub fn count(&mut self, need: &Need<'_>) {
        self.footprint += self.backend.footprint(need);
    }
}

impl<B: Backend> Backend for Tally<'_, B> {
    type Buffer = ();
    type Matrix = ();
    type KvPool = ();

    fn footprint(&self, need: &Need<'_>) -> Footprint {
        self.backend.footprint(need)
    }

    fn buffer(&mut self, len: usize) -> Result<(), OpError> {
        self.count(&Need::Buffer(len));
        Ok(())
    }

    fn matrix(&mut self, data: HostMatrix) -> Result<(), OpError> {
        self.count(&Need::Matrix(data.view().bytes.len() as u64));
        Ok(())
    }

    fn kv_pool(&mut self, format: KvFormat, shape: &AttentionShape, pages: usize) -> Result<(), OpError> {
        self.count(&Need::KvPool { format, shape, pages });
        Ok(())
    }

    fn read_with<T>(
        &mut self,
        (): &(),
        _: usize,
        len: usize,
        reader: impl FnOnce(&[f32]) -> T,
    ) -> Result<T, OpError> {
        Ok(reader(&vec![0.0; len]))
    }

    fn read_page(&mut self, (): &(), _: usize, _: &mut Vec<u8>) -> Result<(), OpError> {
        Ok(())
    }

    fn write(&mut self, (): &mut (), _: usize, _: &[f32]) {}
    fn clear(&mut self, (): &mut (), _: usize, _: usize) {}
    fn copy(&mut self, (): &(), _: usize, (): &mut (), _: usize, _: usize) {}
    fn copy_within(&mut self, (): &mut (), _: usize, _: usize, _: usize) {}
    fn copy_page(&mut self, (): &mut (), _: usize, _: usize, _: usize) {}
    fn write_page(&mut self, (): &mut (), _: usize, _: &[u8]) {}
    fn get_rows(&mut self, (): &(), _: &[u32], (): &mut (), _: usize) {}
    fn norm_products<const N: usize>(&mut self, _: NormProducts<'_, Self, N>) {}
    fn attention(&mut self, _: Attention<'_, Self>) {}
    fn delta_net(&mut self, _: DeltaNet<'_, Self>) {}
    fn output_product(&mut self, _: OutputProduct<'_, Self>) {}
    fn mlp(&mut self, _: Mlp<'_, Self>) {}
    fn add(&mut self, (): &(), _: usize, (): &mut ()) {}
    fn experts(&mut self, _: &[ExpertRows<'_>], (): &(), (): &mut ()) {}
    fn combine(&mut self, _: Combine<'_, Self>) {}
}
