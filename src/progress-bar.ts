import type { Terminal } from './terminal.ts'

const REDRAW = 100

/** What an import has done so far. */
export type Tally = { recorded: number, duplicates: number, dropped: number }

/** Shows how far an import has come: in a terminal alone, and at most ten times a second. */
export class ProgressBar {
  private readonly startedAt: number
  private drawnAt = 0
  private doneBefore: number | undefined

  /** @param total bytes of the input, where they are known */
  constructor(
    private readonly terminal: Terminal,
    private readonly total: number | undefined,
    private readonly now: () => number = Date.now,
  ) {
    this.startedAt = now()
  }

  /** @param done bytes of the input that are done with */
  show(done: number, tally: Tally): void {
    this.doneBefore ??= done
    if (!this.terminal.hasBar || this.now() - this.drawnAt < REDRAW) return
    this.drawnAt = this.now()
    this.terminal.showBar(this.text(done, tally))
  }

  hide(): void {
    this.terminal.showBar('')
  }

  private text(done: number, { recorded, duplicates, dropped }: Tally): string {
    const events = `${(recorded + duplicates).toLocaleString('en')} events`
    const numbers = dropped > 0 ? `${events}, ${dropped.toLocaleString('en')} dropped` : events
    if (!this.total) return fit(numbers, this.terminal.width)
    const share = Math.min(1, done / this.total)
    return barOf(share, `${numbers}${this.timeLeft(done)}`, this.terminal.width)
  }

  private timeLeft(done: number): string {
    const elapsed = this.now() - this.startedAt
    const since = done - (this.doneBefore ?? 0)
    if (!this.total || since <= 0 || elapsed < 2000) return ''
    const seconds = Math.ceil((this.total - done) / since * elapsed / 1000)
    return seconds < 100 ? `, ${seconds} s left` : `, ${Math.ceil(seconds / 60)} min left`
  }
}

/** A bar as wide as there is room for, the share in per cent, and what else there is to say. */
export function barOf(share: number, text: string, width: number): string {
  const label = `${String(Math.floor(share * 100)).padStart(3)}%  ${text}`
  const room = Math.min(30, width - label.length - 4)
  if (room < 5) return fit(label, width)
  const filled = Math.round(share * room)
  return `${'█'.repeat(filled)}${'░'.repeat(room - filled)} ${label}`
}

const fit = (text: string, width: number): string => text.slice(0, Math.max(0, width - 1))
