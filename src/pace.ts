/**
 * Keeps requests to a number a minute: a fifth of them may come at once, and the others are spread, so that no minute
 * has more than the number.
 */
export class Pace {
  private readonly burst: number
  private readonly gapMs: number
  private spreadTo = -Infinity

  /** @param now a clock, in milliseconds. */
  constructor(perMinute: number, private readonly now: () => number = () => performance.now()) {
    this.burst = Math.max(1, Math.floor(perMinute / 5))
    this.gapMs = 60_000 / Math.max(perMinute - this.burst, 0.5)
  }

  /** Counts a request, and says how many milliseconds it is to wait. */
  next(): number {
    const now = this.now()
    this.spreadTo = Math.max(this.spreadTo, now)
    const wait = Math.max(0, this.spreadTo - (this.burst - 1) * this.gapMs - now)
    this.spreadTo += this.gapMs
    return wait
  }
}
