//! Pictures in, one picture out.
//!
//! [`Compositor`] is the way in: told who is there and how ([`Compositor::set_tiles`]), it divides its canvas
//! ([`layout`]), and once per tick draws what is new ([`Compositor::compose`]): each source scaled into its tile
//! ([`scale`]), a name on it ([`label`]), or a card where there is no picture ([`card`]), all in the colours and the
//! font of a [`Theme`].
//!
//! All pictures are I420 ([`frame`]), 8 bit, limited range (BT.601), sides even.

pub mod avatar;
pub mod card;
pub mod compositor;
pub mod frame;
pub mod label;
pub mod layout;
pub mod scale;
mod simd;
mod text;
pub mod theme;

pub use avatar::Avatar;
pub use compositor::{Compositor, Picture, TileSpec};
pub use frame::{I420, View};
pub use layout::{Rect, Size};
pub use theme::Theme;
