// Images that belong to a message: read from files, made smaller where they are large, shown in rows.

import { iconButton, make } from "./dom.js";

const LARGEST = 2048; // pixels of the longer side; models see no more
const MOST = 8;
const KINDS = /^data:image\/(?:png|jpeg|webp|gif|bmp|avif);base64,[A-Za-z0-9+/=]+$/;

/** Whether a text is an image as messages hold them: a data URL. */
export function isImage(url) {
  return typeof url === "string" && url.length < 16 * 1024 * 1024 && KINDS.test(url);
}

/** The images among the files of an event (paste, drop) or a field. */
export function imageFiles(list) {
  return Array.from(list ?? []).filter((file) => file.type.startsWith("image/"));
}

/** A file as a data URL, no larger than a model sees. Raises Error with words for people. */
export async function read(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    throw new Error(`${file.name || "The image"} cannot be read by this browser.`);
  }
  const scale = Math.min(1, LARGEST / Math.max(bitmap.width, bitmap.height));
  const canvas = make("canvas", {
    width: String(Math.max(1, Math.round(bitmap.width * scale))), height: String(Math.max(1, Math.round(bitmap.height * scale))),
  });
  canvas.getContext("2d").drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  bitmap.close();
  const png = file.type === "image/png" || file.type === "image/gif";
  const exact = canvas.toDataURL("image/png");
  // Photographs as PNG would be many times as large.
  return png && exact.length < 2 * 1024 * 1024 ? exact : canvas.toDataURL("image/jpeg", 0.92);
}

/** A row of images; with `remove`, each has a button. */
export function row(images, remove = null) {
  return images.map((url, index) => {
    const image = make("img", { src: url, alt: `Image ${index + 1}`, class: "picture" });
    return make("span", { class: "attached" }, image, ...(remove ? [iconButton("close", `Remove image ${index + 1}`, () => remove(index))] : []));
  });
}

/** The images of a message that is being written. */
export class Attachments {
  images = [];
  #place;
  #failed;

  /** place: where they are shown; failed: called with words. */
  constructor(place, failed) {
    this.#place = place;
    this.#failed = failed;
  }

  async add(files) {
    for (const file of files) {
      if (this.images.length >= MOST) return this.#failed(`A message takes up to ${MOST} images.`);
      try {
        this.images.push(await read(file));
      } catch (error) {
        this.#failed(error.message);
      }
    }
    this.show();
  }

  /** The images, which are taken away from here. */
  take() {
    const { images } = this;
    this.images = [];
    this.show();
    return images;
  }

  show() {
    this.#place.hidden = this.images.length === 0;
    this.#place.replaceChildren(...row(this.images, (index) => {
      this.images.splice(index, 1);
      this.show();
    }));
  }
}
