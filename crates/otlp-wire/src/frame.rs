//! gRPC's frame around a message: a compressed flag, a length, the message (gRPC over HTTP/2,
//! "Length-Prefixed-Message").

/// The length of the prefix: the compressed flag and a 32-bit length.
pub const PREFIX: usize = 5;

/// Why bytes are not one framed message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// The bytes end before the message does.
    Short,
    /// Something follows the message.
    Long,
    /// The flag is neither 0 nor 1.
    Flag,
}

/// The length that a prefix announces, the prefix included; 0 if the prefix is incomplete.
pub fn announced(beginning: &[u8]) -> usize {
    beginning
        .first_chunk::<PREFIX>()
        .map_or(0, |&[_, a, b, c, d]| {
            (u32::from_be_bytes([a, b, c, d]) as usize).saturating_add(PREFIX)
        })
}

/// The one message of a unary call, and whether it is compressed.
///
/// # Errors
/// If the bytes are not exactly one message.
pub fn unframe(mut framed: Vec<u8>) -> Result<(Vec<u8>, bool), FrameError> {
    let Some((&[flag, a, b, c, d], message)) = framed.split_first_chunk::<PREFIX>() else {
        return Err(FrameError::Short);
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    match message.len() {
        received if received < length => return Err(FrameError::Short),
        received if received > length => return Err(FrameError::Long),
        _ => {}
    }
    if flag > 1 {
        return Err(FrameError::Flag);
    }
    framed.drain(..PREFIX);
    Ok((framed, flag == 1))
}
