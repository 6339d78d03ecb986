import { open, readFile, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { TrackingError } from './tracking-error.ts'

/** How far an import has come; what a later run needs to go on from there. */
export type ImportState = {
  version: 1
  /** The time of the lines that have none of their own, ISO 8601: kept, so that they are the same events every time. */
  startedAt: string
  /** Whether the end of the input was reached. */
  finished: boolean
  /** So many lines, from the first one on, are done with: recorded, or dropped. */
  lines: number
  /** Over those lines: tells whether an input begins with the same. */
  digest: string
  recorded: number
  duplicates: number
  dropped: number
  /** How long the file of rejects is with what was dropped so far, in bytes. */
  rejectsBytes: number
}

/** Says that an input has not been begun. */
export function newImport(now: Date): ImportState {
  return {
    version: 1, startedAt: now.toISOString(), finished: false,
    lines: 0, digest: '', recorded: 0, duplicates: 0, dropped: 0, rejectsBytes: 0 }
}

/**
 * Reads how far an import came; `undefined` where the file is not there yet.
 *
 * @throws {TrackingError} `resume_unreadable`, where it is another kind of file.
 */
export async function readImport(path: string): Promise<ImportState | undefined> {
  const text = await readFile(path, 'utf8').catch((cause: NodeJS.ErrnoException) => {
    if (cause.code === 'ENOENT') return undefined
    throw unreadable(path, cause.message, cause)
  })
  if (text === undefined) return undefined
  try {
    const state = JSON.parse(text) as ImportState
    if (state.version === 1 && !Number.isNaN(Date.parse(state.startedAt)) && state.lines >= 0) return state
  } catch { /* said below */ }
  throw unreadable(path, 'it is no progress of an import')
}

function unreadable(path: string, reason: string, cause?: unknown): TrackingError {
  return new TrackingError('resume_unreadable', {
    details: `${path} cannot be used: ${reason}.`,
    hint: 'Name another with --resume; lines that have no event_id and no timestamp are new events then.',
    cause,
  })
}

/**
 * Keeps how far an import came: when this resolves it is on the disk, and at no moment is it half written.
 *
 * @throws {TrackingError} `resume_unwritable`.
 */
export async function writeImport(path: string, state: ImportState): Promise<void> {
  const draft = `${path}.new`
  try {
    const file = await open(draft, 'w')
    try {
      await file.writeFile(`${JSON.stringify(state)}\n`)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(draft, path)
    await syncFolder(dirname(path))
  } catch (cause) {
    await rm(draft, { force: true })
    throw new TrackingError('resume_unwritable', {
      details: `${path} cannot be written: ${(cause as Error).message}.`,
      hint: 'Name a file that can with --resume.',
      cause,
    })
  }
}

// A rename is on the disk when its folder is; Windows knows no such thing.
async function syncFolder(path: string): Promise<void> {
  if (process.platform === 'win32') return
  const folder = await open(path, 'r')
  await folder.sync().finally(() => folder.close())
}
