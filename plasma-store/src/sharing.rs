//! What the store shares with clients beyond the socket, as it was set.

use plasma_core::shm::page::Shape;

/// What is shared unless told: objects that a client holds, requests and bytes that it has under way.
const SHAPE: Shape = Shape {
    pins: 8192,
    requests: 256,
    content_bytes: 256 << 10,
};

/// What is shared with each client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sharing {
    pub(crate) enabled: bool,
    pub(crate) pins: u32,
    pub(crate) requests: u32,
    pub(crate) content_bytes: u32,
}

impl Default for Sharing {
    fn default() -> Self {
        Self {
            enabled: true,
            pins: SHAPE.pins,
            requests: SHAPE.requests,
            content_bytes: SHAPE.content_bytes,
        }
    }
}

impl Sharing {
    /// What the server lays out for each client; `None` is nothing.
    pub(crate) fn shape(&self) -> Option<Shape> {
        let most = Shape::MAX;
        let requests = self.requests.min(most.requests);
        let shape = Shape {
            pins: self.pins.min(most.pins),
            requests: if requests == 0 {
                0
            } else {
                requests.next_power_of_two()
            },
            content_bytes: self
                .content_bytes
                .min(most.content_bytes)
                .next_multiple_of(64),
        };
        (self.enabled && shape.is_valid()).then_some(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_set_can_be_laid_out_or_is_nothing() {
        for number in [0, 1, 3, 63, 64, 65, 1000, u32::MAX] {
            let sharing = Sharing {
                pins: number,
                requests: number,
                content_bytes: number,
                ..Sharing::default()
            };
            let shape = sharing.shape();
            assert_eq!(shape.is_some(), number > 0);
            assert!(shape.is_none_or(|shape| shape.is_valid()));
        }
        let off = Sharing {
            enabled: false,
            ..Sharing::default()
        };
        assert!(off.shape().is_none());
    }
}
