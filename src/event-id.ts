/**
 * Makes UUIDv7s (RFC 9562) that carry a time, in whole milliseconds since 1970. Those of one millisecond keep the order in
 * which they were made: 24 bits count up, from a random start in their lower half; 48 more are random. Of what is no
 * such time it makes no UUID, which the database says.
 */
export function eventIds(): (at: number) => string {
  let last: number
  let step = 0
  return (at) => {
    const [start, a, b] = crypto.getRandomValues(new Uint32Array(3)) as unknown as [number, number, number]
    step = at === last ? step + 1 : start >>> 9
    last = at
    return (hex(at, 12) + hex(step, 6) + hex(a, 8) + hex(b >>> 16, 4))
      .replace(/(.{8})(.{4})(.{3})(.{3})/, '$1-$2-7$3-8$4-')
  }
}

const hex = (value: number, digits: number): string => value.toString(16).padStart(digits, '0')
