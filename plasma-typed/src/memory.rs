//! From bytes to values and back: the crate's only way to a reference into shared memory.
//!
//! What makes `&T` over such memory sound is said at the crate's root ("Trust").

use std::mem::MaybeUninit;
use std::ptr;
use std::slice;

use crate::error::{Corruption, InvalidBytes};
use crate::object::{Layout, PlasmaObject};

/// Why bytes are no value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum NoValue {
    Corrupt(Corruption),
    Invalid(InvalidBytes),
}

/// The bytes of a value, less what rounds its size up behind a tail.
pub(crate) fn bytes_of<T: ?Sized + PlasmaObject>(value: &T) -> &[u8] {
    // The value is there, so it is not too large; the minimum makes the rest independent of that.
    let len = Layout::<T>::used(T::tail_len(value)).min(size_of_val(value));
    // SAFETY: the value has at least `len` bytes; a `PlasmaObject` has none that are uninitialised
    // before its end, and they do not change while it is borrowed.
    unsafe { slice::from_raw_parts(ptr::from_ref(value).cast::<u8>(), len) }
}

/// The value that bytes of an object are, if they are one.
pub(crate) fn view<T: ?Sized + PlasmaObject>(bytes: &[u8], tail_len: u64) -> Result<&T, NoValue> {
    let len = check_place::<T>(bytes, tail_len).map_err(NoValue::Corrupt)?;
    if !T::ALL_BITS_VALID {
        let used = bytes.get(..Layout::<T>::used(len));
        used.ok_or_else(|| InvalidBytes::new("bytes are missing"))
            .and_then(T::check)
            .map_err(NoValue::Invalid)?;
    }
    // SAFETY: the place is right and the bytes are a value, as was just checked.
    Ok(unsafe { assume(bytes, len) })
}

/// Whether the bytes are as many as a value with such a tail takes, and start where one may; the
/// tail's length, then.
pub(crate) fn check_place<T: ?Sized + PlasmaObject>(
    bytes: &[u8],
    tail_len: u64,
) -> Result<usize, Corruption> {
    if Layout::<T>::ELEMENT.is_none() && tail_len != 0 {
        return Err(Corruption::UnexpectedTail { tail_len });
    }
    let len = usize::try_from(tail_len);
    let expected_bytes = len.ok().and_then(Layout::<T>::size);
    match len {
        Ok(len) if expected_bytes == Some(bytes.len()) => {
            let address = bytes.as_ptr().addr();
            if !address.is_multiple_of(Layout::<T>::ALIGN) {
                return Err(Corruption::Misaligned {
                    address,
                    align: Layout::<T>::ALIGN,
                });
            }
            Ok(len)
        }
        _ => Err(Corruption::WrongSize {
            expected_bytes,
            found_bytes: bytes.len(),
            tail_len,
        }),
    }
}

/// The value that bytes are.
///
/// # Safety
/// [`check_place`] accepts the bytes and `len`, and they are a value.
pub(crate) unsafe fn assume<T: ?Sized + PlasmaObject>(bytes: &[u8], len: usize) -> &T {
    let value = T::from_parts(bytes.as_ptr(), len);
    // SAFETY: as many bytes as the type takes, aligned, initialised, borrowed for as long as the
    // reference, and a value, by the caller's word.
    unsafe { &*value }
}

/// The value that bytes are, to be written.
///
/// # Safety
/// As for [`assume`].
pub(crate) unsafe fn assume_mut<T: ?Sized + PlasmaObject>(bytes: &mut [u8], len: usize) -> &mut T {
    let value = T::from_parts(bytes.as_mut_ptr(), len).cast_mut();
    // SAFETY: as for `assume`; the bytes are borrowed mutably. What is written through the
    // reference leaves no byte uninitialised, as a `PlasmaObject` has no padding that a write could
    // spoil (behind a tail there may be some, but nothing writes an unsized value whole).
    unsafe { &mut *value }
}

/// Copies a text into the place of one that is as long: how the text of an object is written.
///
/// ```no_run
/// use plasma_typed::{ObjectId, PlasmaObject, TypedClient, copy_str};
///
/// #[derive(PlasmaObject)]
/// #[repr(C)]
/// struct Note {
///     written_ns: u64,
///     text: str,
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let client = TypedClient::connect("/tmp/plasma")?;
/// let text = "buy low, sell high";
/// let mut note = client.create_with_len::<Note>(ObjectId::rand(), text.len())?;
/// copy_str(&mut note.text, text);
/// let note = note.seal()?;
/// assert_eq!(&note.text, text);
/// # Ok(())
/// # }
/// ```
///
/// # Panics
/// If one is longer than the other, in bytes.
#[track_caller]
pub fn copy_str(place: &mut str, text: &str) {
    assert_eq!(
        place.len(),
        text.len(),
        "the text has another length in bytes than its place"
    );
    // SAFETY: all of the bytes become those of a text.
    let bytes = unsafe { place.as_bytes_mut() };
    bytes.copy_from_slice(text.as_bytes());
}

/// Bytes as values that are still to be written.
///
/// # Safety
/// The bytes are `count` times the size of `E`, and start at a multiple of its alignment. Nobody
/// reads them as bytes before values have been written.
pub(crate) unsafe fn assume_uninit<E>(bytes: &mut [u8], count: usize) -> &mut [MaybeUninit<E>] {
    let start = bytes.as_mut_ptr().cast::<MaybeUninit<E>>();
    // SAFETY: as many bytes, aligned and borrowed mutably, by the caller's word; a `MaybeUninit`
    // may hold any.
    unsafe { slice::from_raw_parts_mut(start, count) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No store that keeps to the protocol places an object like this.
    #[test]
    fn misaligned_bytes_are_no_value() {
        let memory = [0_u64; 4];
        let bytes: &[u8] = bytemuck::bytes_of(&memory);
        for offset in 0..16 {
            let viewed = view::<[u32]>(&bytes[offset..][..12], 3);
            match offset % 4 {
                0 => assert_eq!(viewed, Ok(&[0; 3][..])),
                _ => assert!(matches!(
                    viewed,
                    Err(NoValue::Corrupt(Corruption::Misaligned { align: 4, .. }))
                )),
            }
        }
        assert_eq!(view::<[u8]>(&bytes[1..4], 3), Ok(&[0; 3][..]));
    }

    #[test]
    fn what_takes_no_space_has_any_length() {
        let nothing: &[u8] = bytemuck::cast_slice(&[0_u64; 0]);
        let arrays = view::<[[u64; 0]]>(nothing, 1 << 40);
        assert_eq!(arrays.map(<[_]>::len), Ok(1 << 40));
        assert_eq!(view::<[[bool; 0]]>(nothing, 7).map(<[_]>::len), Ok(7));
    }
}
