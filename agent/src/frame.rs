//! gRPC's frame around a message: whether it is compressed, its length, the message (gRPC over HTTP/2,
//! "Length-Prefixed-Message"). Pure; must not know requests.

/// The compressed flag and a 32-bit length.
pub const PREFIX: usize = 5;

/// Why bytes are not one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    /// They end before the message does.
    Short,
    /// Something follows the message.
    Long,
    /// The flag is neither 0 nor 1.
    Flag,
}

/// What the prefix announces, itself included; 0 where it has not arrived.
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
/// How the bytes differ from one message.
pub fn unframe(mut framed: Vec<u8>) -> Result<(Vec<u8>, bool), Broken> {
    let Some((&[flag, a, b, c, d], message)) = framed.split_first_chunk::<PREFIX>() else {
        return Err(Broken::Short);
    };
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    match message.len() {
        received if received < length => return Err(Broken::Short),
        received if received > length => return Err(Broken::Long),
        _ => {}
    }
    if flag > 1 {
        return Err(Broken::Flag);
    }
    framed.drain(..PREFIX);
    Ok((framed, flag == 1))
}
