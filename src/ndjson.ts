import { once } from 'node:events'
import { open, type FileHandle } from 'node:fs/promises'
import process from 'node:process'
import { readSettings, SinkError, type LoggedEvent, type Sink, type SinkSettings } from './sink.ts'

/**
 * Writes each event as a line of JSON: the row of public.events, as it is.
 * Settings: `path`, a file that is appended to; without it, to standard output.
 * The lines are on the disk before the events count as delivered. The file is opened for each batch, so it may be
 * moved away at any time, and a line that a crash cut short does not spoil the next.
 */
export function openNdjson(batch: SinkSettings): Sink {
  const { path } = readSettings(batch, { path: 'text' })
  const write = path === undefined ? print : (text: string) => append(path, text)
  return {
    maxBatch: 1000,
    async send(events: LoggedEvent[]) {
      await write(events.map((event) => `${JSON.stringify(event)}\n`).join('')).catch((cause: Error) => {
        throw new SinkError('retry', cause.message, { cause })
      })
      return []
    },
  }
}

async function append(path: string, text: string): Promise<void> {
  const file = await open(path, 'a+')
  try {
    await file.writeFile(await endsInLine(file) ? text : `\n${text}`)
    await file.datasync()
  } finally {
    await file.close()
  }
}

async function endsInLine(file: FileHandle): Promise<boolean> {
  const { size } = await file.stat()
  if (size === 0) return true
  const { buffer } = await file.read(new Uint8Array(1), 0, 1, size - 1)
  return buffer[0] === 0x0a
}

async function print(text: string): Promise<void> {
  if (!process.stdout.write(text)) await once(process.stdout, 'drain')
}
