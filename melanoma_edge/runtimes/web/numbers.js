/** Returns a picture's bytes as a tensor of `shape` takes them: the bytes, their numbers as float32, or the float32 that were sent. */
export function numbers(bytes, shape, dtype) {
  if (dtype === 'uint8') return bytes;
  const count = shape.reduce((product, size) => product * size, 1);
  return bytes.length === count ? Float32Array.from(bytes) : new Float32Array(bytes.slice().buffer);
}
