//! The sizes of conversations.

/// Bytes of a request, and of a response. Without responses the server is a sink, without requests
/// a source.
#[derive(Clone, Copy, Debug)]
pub struct Sizes(pub u64, pub u64);

impl Sizes {
    /// How many times as many bytes come back as are sent, rounded up.
    pub fn growth(self) -> usize {
        self.1.div_ceil(self.0).max(1) as usize
    }

    /// The arguments of a server of such conversations.
    pub fn arguments(self) -> Vec<String> {
        let Self(request, response) = self;
        let (service, sizes) = match (request, response) {
            (_, 0) => ("sink", vec![("request", request)]),
            (0, _) => ("source", vec![("response", response)]),
            _ => ("exchange", vec![("request", request), ("response", response)]),
        };
        let sizes = sizes.into_iter().map(|(name, bytes)| format!("--{name}-bytes={bytes}"));
        std::iter::once(format!("--service={service}")).chain(sizes).collect()
    }
}
