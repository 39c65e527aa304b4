//! What sequences leave behind: keys and values in pages, recurrent states in slots, in pools that all sequences share.
//!
//! A page has one number in the pools of all attention layers, a slot one in those of all DeltaNet layers. Who owns which
//! is the caller's business.

use ops::{Backend, KvFormat, OpError, PAGE_TOKENS};

use crate::layers::delta_net::RecurrentPool;
use crate::layers::{DeltaNetStates, KvPools};
use crate::spec::{LayerSpec, MixerSpec};
use crate::{ModelError, ModelSpec};

/// Pools of one layer.
pub(crate) enum LayerStates<B: Backend> {
    Attention(KvPools<B>),
    DeltaNet(DeltaNetStates<B>),
}

/// Pools of all layers.
pub struct States<B: Backend> {
    pub(crate) layers: Vec<LayerStates<B>>,
    page_bytes: usize,
    slot_len: usize,
}

impl<B: Backend> States<B> {
    /// Pools of `pages` pages, with keys and values in `kv`, and of `slots` recurrent states.
    ///
    /// # Errors
    /// [`OpError::OutOfMemory`].
    pub fn new(
        backend: &mut B,
        spec: &ModelSpec,
        kv: KvFormat,
        pages: usize,
        slots: usize,
    ) -> Result<Self, OpError> {
        let layer = |layer: &LayerSpec| match &layer.mixer {
            MixerSpec::DeltaNet(shape) => {
                DeltaNetStates::new(backend, shape, slots).map(LayerStates::DeltaNet)
            }
            MixerSpec::Attention(attention) => {
                KvPools::new(backend, &attention.shape, kv, pages).map(LayerStates::Attention)
            }
        };
        Ok(Self {
            layers: spec.layers.iter().map(layer).collect::<Result<_, _>>()?,
            page_bytes: Self::page_bytes(spec, kv) as usize,
            slot_len: spec.recurrent_state_bytes() as usize / size_of::<f32>(),
        })
    }

    /// Bytes of one page in all layers.
    pub fn page_bytes(spec: &ModelSpec, kv: KvFormat) -> u64 {
        PAGE_TOKENS as u64 * spec.kv_bytes_per_token(kv)
    }

    /// Sets a slot to the state before the first token: zeros.
    pub fn clear_slot(&mut self, backend: &mut B, slot: u32) {
        for pool in self.recurrent() {
            let (at, len) = (slot as usize * pool.len, pool.len);
            backend.clear(pool.buffer, at, len);
        }
    }

    /// Copies a recurrent state.
    pub fn copy_slot(&mut self, backend: &mut B, from: u32, to: u32) {
        for pool in self.recurrent() {
            let len = pool.len;
            backend.copy_within(pool.buffer, from as usize * len, to as usize * len, len);
        }
    }

    /// Copies the keys and values of the first `tokens` tokens of a page.
    pub fn copy_page(&mut self, backend: &mut B, from: u32, to: u32, tokens: u32) {
        for pool in self.kv_pools() {
            backend.copy_page(pool, from as usize, to as usize, tokens as usize);
        }
    }

    /// Appends the keys and values of a page, as they are stored.
    ///
    /// # Errors
    /// As [`Backend::read_page`].
    pub fn save_page(&mut self, backend: &mut B, page: u32, out: &mut Vec<u8>) -> Result<(), OpError> {
        self.kv_pools().try_for_each(|pool| backend.read_page(pool, page as usize, out))
    }

    /// Sets a page to bytes that [`States::save_page`] gave, for the same model and format.
    ///
    /// # Errors
    /// [`ModelError::StateLength`] if it is not as many bytes.
    pub fn load_page(&mut self, backend: &mut B, page: u32, bytes: &[u8]) -> Result<(), ModelError> {
        let (expected, got) = (self.page_bytes, bytes.len());
        if got != expected {
            return Err(ModelError::StateLength { what: "page", expected, got });
        }
        let pools = self.kv_pools().count();
        let parts = bytes.chunks_exact((expected / pools.max(1)).max(1));
        self.kv_pools().zip(parts).for_each(|(pool, bytes)| backend.write_page(pool, page as usize, bytes));
        Ok(())
    }

    /// Appends a recurrent state: f32, little-endian.
    ///
    /// # Errors
    /// As [`Backend::read`].
    pub fn save_slot(&mut self, backend: &mut B, slot: u32, out: &mut Vec<u8>) -> Result<(), OpError> {
        let mut values = Vec::new();
        for pool in self.recurrent() {
            values.resize(pool.len, 0.0);
            backend.read(pool.buffer, slot as usize * pool.len, &mut values)?;
            values.iter().for_each(|value: &f32| out.extend_from_slice(&value.to_le_bytes()));
        }
        Ok(())
    }

    /// Sets a recurrent state to bytes that [`States::save_slot`] gave.
    ///
    /// # Errors
    /// [`ModelError::StateLength`] if it is not as many bytes.
    pub fn load_slot(&mut self, backend: &mut B, slot: u32, bytes: &[u8]) -> Result<(), ModelError> {
        let (expected, got) = (self.slot_len * size_of::<f32>(), bytes.len());
        if got != expected {
            return Err(ModelError::StateLength { what: "recurrent state", expected, got });
        }
        let mut values = bytes.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
        for pool in self.recurrent() {
            let part: Vec<f32> = values.by_ref().take(pool.len).collect();
            backend.write(pool.buffer, slot as usize * pool.len, &part);
        }
        Ok(())
    }

    fn kv_pools(&mut self) -> impl Iterator<Item = &mut B::KvPool> {
        self.layers
            .iter_mut()
            .flat_map(|layer| match layer {
                LayerStates::Attention(pools) => [Some(&mut pools.keys), Some(&mut pools.values)],
                LayerStates::DeltaNet(_) => [None, None],
            })
            .flatten()
    }

    fn recurrent(&mut self) -> impl Iterator<Item = RecurrentPool<'_, B>> {
        self.layers
            .iter_mut()
            .flat_map(|layer| match layer {
                LayerStates::Attention(_) => [None, None],
                LayerStates::DeltaNet(states) => states.pools().map(Some),
            })
            .flatten()
    }
}
