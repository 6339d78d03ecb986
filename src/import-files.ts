import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { open, stat, type FileHandle } from 'node:fs/promises'
import { resolve } from 'node:path'
import type { Reject } from './bulk.ts'
import type { ImportState } from './import-state.ts'
import { visible } from './terminal.ts'
import { TrackingError } from './tracking-error.ts'

export type Input = AsyncIterable<Buffer> & { destroy(): void }

export type OpenInput = {
  input: Input
  /** How long the file is; absent for a pipe. */
  bytes?: number
  /** How much of the file was read. */
  bytesRead(): number
}

/**
 * Opens a file, or stdin (`-`).
 *
 * @throws {TrackingError} `file_unreadable`.
 */
export async function openInput(file: string): Promise<OpenInput> {
  if (file === '-') return { input: process.stdin, bytesRead: () => 0 }
  try {
    const found = await stat(file)
    if (found.isDirectory()) throw new Error('it is a folder')
    const input = createReadStream(file)
    await once(input, 'ready')
    return { input, bytes: found.isFile() ? found.size : undefined, bytesRead: () => input.bytesRead }
  } catch (cause) {
    throw new TrackingError('file_unreadable', {
      details: `${file} cannot be read: ${(cause as Error).message}.`,
      hint: 'Name a file that can, or - for stdin.',
      cause,
    })
  }
}

/**
 * Sees to it that what is written is not what is read, or written otherwise.
 *
 * @throws {TrackingError} `file_conflict`.
 */
export async function refuseSameFiles(input: string, rejects: string | undefined, resume: string | undefined): Promise<void> {
  const pairs = [['--rejects', rejects, 'the input', input], ['--resume', resume, 'the input', input],
    ['--rejects', rejects, 'the progress of the import', resume]] as const
  for (const [flag, one, what, other] of pairs) {
    if (one === undefined || other === undefined || !await isSameFile(one, other)) continue
    throw new TrackingError('file_conflict', { details: `${one} is ${what}.`, hint: `Name another file with ${flag}.` })
  }
}

async function isSameFile(one: string, other: string): Promise<boolean> {
  if (resolve(one) === resolve(other)) return true
  const [first, second] = await Promise.all([one, other].map((path) => stat(path).catch(() => undefined)))
  return first !== undefined && first.ino === second?.ino && first.dev === second.dev && first.isFile()
}

/** What was not recorded, as a line for people. */
export function asLine({ line, code, details, hint }: Reject): string {
  return `line ${line}: ${visible([code, details].filter(Boolean).join(': '))}${hint ? ` (${visible(hint)})` : ''}`
}

/** The file of what was not recorded: as long as the state says, whatever a run that was killed had added. */
export class Rejects {
  private constructor(private readonly path: string, private readonly file: FileHandle, private length: number) {}

  static async open(path: string, { rejectsBytes }: ImportState): Promise<Rejects> {
    try {
      const file = await open(path, 'a')
      const length = Math.min((await file.stat()).size, rejectsBytes)
      await file.truncate(length)
      return new Rejects(path, file, length)
    } catch (cause) {
      throw Rejects.unwritable(path, cause as Error)
    }
  }

  /** @returns how long the file is then, in bytes; they are on the disk. */
  async add(rejects: Reject[]): Promise<number> {
    const text = rejects.map((reject) => `${JSON.stringify(reject)}\n`).join('')
    try {
      await this.file.appendFile(text)
      await this.file.datasync()
    } catch (cause) {
      throw Rejects.unwritable(this.path, cause as Error)
    }
    return this.length += Buffer.byteLength(text)
  }

  async close(): Promise<void> {
    await this.file.close()
  }

  private static unwritable(path: string, cause: Error): TrackingError {
    return new TrackingError('file_unwritable', {
      details: `${path} cannot be written: ${cause.message}.`, hint: 'Name another file with --rejects.', cause })
  }
}
