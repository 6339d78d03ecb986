// How numbers, times and names are written. Times are UTC's, as all of the database's answers are.

const locale = 'en-GB'
const dateFormat = new Intl.DateTimeFormat(locale, { day: 'numeric', month: 'short', year: 'numeric', timeZone: 'UTC' })
const dayFormat = new Intl.DateTimeFormat(locale, { weekday: 'long', day: 'numeric', month: 'long', year: 'numeric', timeZone: 'UTC' })
const shortFormat = new Intl.DateTimeFormat(locale, { day: 'numeric', month: 'short', timeZone: 'UTC' })
const monthFormat = new Intl.DateTimeFormat(locale, { month: 'short', year: 'numeric', timeZone: 'UTC' })
const timeFormat = new Intl.DateTimeFormat(locale, { hour: '2-digit', minute: '2-digit', second: '2-digit', timeZone: 'UTC' })
const minuteFormat = new Intl.DateTimeFormat(locale, { hour: '2-digit', minute: '2-digit', timeZone: 'UTC' })
const numberFormat = new Intl.NumberFormat(locale)

export const count = (value: number): string => numberFormat.format(value)
export const percent = (share: number): string => `${(100 * share).toFixed(1).replace(/\.0$/, '')}%`
export const date = (time: string): string => dateFormat.format(new Date(time))
export const weekday = (time: string): string => dayFormat.format(new Date(time))
export const shortDate = (time: string): string => shortFormat.format(new Date(time))
export const timeOfDay = (time: string): string => timeFormat.format(new Date(time))
export const dateAndTime = (time: string): string => `${dateFormat.format(new Date(time))}, ${minuteFormat.format(new Date(time))}`

/** "1 person", "2,304 people". */
export const many = (value: number, one: string, more = `${one}s`): string => `${count(value)} ${value === 1 ? one : more}`

/** The name of a period by its first moment. */
export function periodName(time: string, period: string): string {
  if (period === 'hour') return `${shortDate(time)}, ${minuteFormat.format(new Date(time))}`
  if (period === 'week') return `Week of ${date(time)}`
  return period === 'month' ? monthFormat.format(new Date(time)) : date(time)
}

/** A span of time in its two largest units: "44 s", "2 h 58 min". */
export function duration(seconds: number): string {
  if (seconds < 60) return `${seconds < 10 ? Number(seconds.toFixed(1)) : Math.round(seconds)} s`
  const units: [string, number][] = [['d', 86_400], ['h', 3600], ['min', 60], ['s', 1]]
  const first = units.findIndex(([, size]) => seconds >= size)
  const [unit, size] = units[first] ?? ['s', 1]
  const [lesser, lesserSize] = units[first + 1] ?? ['s', 1]
  const rest = Math.round((seconds % size) / lesserSize)
  if (rest * lesserSize === size) return `${Math.floor(seconds / size) + 1} ${unit}`
  return `${Math.floor(seconds / size)} ${unit}${rest ? ` ${rest} ${lesser}` : ''}`
}

/** How long ago: "just now", "5 min ago", "3 days ago". */
export function ago(time: string, now = Date.now()): string {
  const minutes = Math.floor((now - Date.parse(time)) / 60_000)
  if (minutes < 1) return 'just now'
  if (minutes < 60) return `${minutes} min ago`
  if (minutes < 1440) return `${Math.floor(minutes / 60)} h ago`
  return `${many(Math.floor(minutes / 1440), 'day')} ago`
}

/** A part of an id that tells it from others. */
export const shortId = (id: string): string => `${id.slice(0, 8)}…${id.slice(-4)}`
