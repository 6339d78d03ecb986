/** One in a million is taken for a repeat where there are 3 million hashes. Pages are used as they are needed. */
const BITS = 2 ** 28
const PROBES = 5
/** So many hashes that came again are counted each by itself; the rest share counters. */
const MAX_COUNTED = 200_000
const SHARED_COUNTERS = 2 ** 20

/**
 * Counts how often each hash has come, in less than 70 MB for any number of them. A Bloom filter tells what is new, so
 * that only what came again needs a counter. Equal hashes never get the same place twice, and the same sequence always
 * gets the same places. Where memory runs out, a place may be higher than it should be, and depend on other hashes.
 */
export class Repeats {
  private readonly seen = new Uint32Array(BITS / 32)
  private readonly counted = new Map<string, number>()
  private readonly shared = new Uint32Array(SHARED_COUNTERS)

  /** Counts a hash of 32 bytes; answers its place among its equals, from 0. */
  placeOf(hash: Buffer): number {
    if (this.addTo(hash)) return 0
    const key = hash.toString('latin1', 0, 16)
    const place = this.counted.get(key)
    if (place === undefined && this.counted.size === MAX_COUNTED) return this.shareCounter(hash)
    this.counted.set(key, (place ?? 0) + 1)
    return (place ?? 0) + 1
  }

  /** @returns whether the hash is new. */
  private addTo(hash: Buffer): boolean {
    let isNew = false
    for (let probe = 0; probe < PROBES; probe++) {
      const bit = hash.readUInt32LE(probe * 4) % BITS
      const mask = 1 << (bit & 31)
      const word = this.seen[bit >>> 5] ?? 0
      isNew ||= (word & mask) === 0
      this.seen[bit >>> 5] = word | mask
    }
    return isNew
  }

  private shareCounter(hash: Buffer): number {
    const counter = hash.readUInt32LE(28) % SHARED_COUNTERS
    const place = (this.shared[counter] ?? 0) + 1
    this.shared[counter] = place
    return place
  }
}
