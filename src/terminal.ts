import colors from 'picocolors'

/** What colours a text, or leaves it alone where there are no colours. */
export type Colors = ReturnType<typeof colors.createColors>

/** What a command says goes to stderr, what it was asked for to stdout: so that a pipe carries data alone. */
export class Terminal {
  /** Colours for stdout: none where it is not a terminal, or NO_COLOR is set. */
  readonly colors: Colors
  /** Colours for stderr. */
  readonly talkColors: Colors
  private bar = ''

  constructor(
    private readonly stdout: NodeJS.WriteStream,
    private readonly stderr: NodeJS.WriteStream,
    private readonly environment: NodeJS.ProcessEnv,
  ) {
    this.colors = colors.createColors(hasColors(stdout, environment))
    this.talkColors = colors.createColors(hasColors(stderr, environment))
  }

  /** Whether somebody watches stdout. */
  get isWatched(): boolean {
    return Boolean(this.stdout.isTTY)
  }

  /** Whether there is a place for a progress bar. */
  get hasBar(): boolean {
    return Boolean(this.stderr.isTTY)
  }

  /** How wide the bar may be, in characters. */
  get width(): number {
    return this.stderr.columns ?? 80
  }

  /** How wide may be what is printed: as wide as the terminal; in a pipe what COLUMNS says, or 80. */
  get columns(): number {
    return this.stdout.columns || Number(this.environment.COLUMNS) || 80
  }

  /** Prints a line of data; resolves when there is room for more. */
  async print(line: string): Promise<void> {
    this.hideBar()
    const hasRoom = this.stdout.write(`${line}\n`)
    this.drawBar()
    if (!hasRoom) await new Promise<void>((done) => this.stdout.once('drain', done))
  }

  /** Says a line to whoever watches. */
  say(line: string): void {
    this.hideBar()
    this.stderr.write(`${line}\n`)
    this.drawBar()
  }

  /** Keeps a line below everything else up to date; `''` takes it away. Nothing, where there is no terminal. */
  showBar(text: string): void {
    this.hideBar()
    this.bar = text
    this.drawBar()
  }

  private hideBar(): void {
    if (this.hasBar && this.bar) this.stderr.write('\r\x1b[2K')
  }

  private drawBar(): void {
    if (this.hasBar && this.bar) this.stderr.write(this.bar)
  }
}

// As https://no-color.org and https://force-color.org have it. picocolors would colour a pipe where CI is set.
function hasColors(stream: NodeJS.WriteStream, { NO_COLOR, FORCE_COLOR, TERM }: NodeJS.ProcessEnv): boolean {
  if (NO_COLOR) return false
  if (FORCE_COLOR) return FORCE_COLOR !== '0' && FORCE_COLOR !== 'false'
  return Boolean(stream.isTTY) && TERM !== 'dumb'
}

// Control characters could move the cursor or recolour the terminal, and those for writing direction turn a text
// round: what others wrote is shown with them as escapes.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u200e\u200f\u2028-\u202e\u2066-\u2069]/g
const escape = (character: string): string => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`

/** A text whose every character can be seen. */
export function spelledOut(text: string): string {
  return text.replace(UNSEEN, escape)
}

/** A text as one line that only prints. */
export function visible(text: string): string {
  return spelledOut(text.replace(/\s*\n\s*/g, ' '))
}

/** A value as one line of JSON that only prints. */
export function jsonLine(value: unknown): string {
  return spelledOut(JSON.stringify(value))
}
