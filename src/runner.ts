import { drain, type Courier, type Ending, type Outcome } from './delivery.ts'

/** Who is told how a sink's work goes. */
export type RunnerReports = {
  /** A batch has come to its end. */
  ended(outcome: Outcome): void
  /** The sink has nothing before it. */
  idle(): void
  /** The database would not have it. */
  failed(error: unknown): void
}

const longestPauseMs = 10_000

/** Works on one sink: looks for batches again and again, and delivers as many at once as it has lanes. */
export class Runner {
  /** Batches at once. */
  lanes = 1
  private busy = 0
  private failures = 0
  private isStopped = false
  private timer: ReturnType<typeof setTimeout> | undefined
  private whenIdle: (() => void)[] = []

  /** @param pollMs milliseconds between looks at a sink that had nothing. */
  constructor(
    private readonly courier: Courier, private readonly sink: string, private readonly ending: Ending,
    private readonly pollMs: number, private readonly reports: RunnerReports,
  ) {}

  /** Looks for a batch now. */
  wake(): void {
    if (this.isEnding || this.busy >= this.lanes) return
    clearTimeout(this.timer)
    this.timer = undefined
    void this.work()
  }

  /** Begins nothing any more. */
  stop(): void {
    this.isStopped = true
    clearTimeout(this.timer)
  }

  /** Resolves when nothing is under way, once it is told to end. */
  async idle(): Promise<void> {
    clearTimeout(this.timer)
    if (this.busy > 0) await new Promise<void>((done) => this.whenIdle.push(done))
  }

  private get isEnding(): boolean {
    return this.isStopped || this.ending.closing.aborted
  }

  private async work(): Promise<void> {
    this.busy++
    const pauseMs = await this.drain()
    this.busy--
    if (this.busy === 0) for (const done of this.whenIdle.splice(0)) done()
    // Also while other lanes are at it: they may take long.
    if (!this.isEnding) this.timer ??= setTimeout(() => { this.timer = undefined; this.wake() }, pauseMs)
  }

  /** Delivers what there is; answers how long to wait before the next look. */
  private async drain(): Promise<number> {
    try {
      // Where one shard has something, another may have as well.
      const begun = () => this.wake()
      await drain(this.courier, this.sink, this.ending, { begun, ended: (outcome) => this.reports.ended(outcome) })
      this.failures = 0
      this.reports.idle()
      return this.pollMs
    } catch (error) {
      this.reports.failed(error)
      return Math.min(longestPauseMs, 100 * 2 ** this.failures++) * (0.5 + Math.random() / 2)
    }
  }
}
