//! Attributes by tag and keyword (DICOM PS3.6, chapter 6).

use std::fmt;

/// An attribute's group and element number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag(
    /// Group.
    pub u16,
    /// Element.
    pub u16,
);

/// `(0028,0004) PhotometricInterpretation`.
impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({:04X},{:04X})", self.0, self.1)?;
        match self.keyword() {
            Some(keyword) => write!(f, " {keyword}"),
            None => Ok(()),
        }
    }
}

impl Tag {
    /// Its name in PS3.6, of those that are known here.
    pub fn keyword(self) -> Option<&'static str> {
        KNOWN.iter().find(|known| known.0 == self).map(|known| known.1)
    }

    /// The attribute of a keyword such as `PatientSex`, or of a tag as `(0010,0040)`, `0010,0040` or `00100040`.
    pub fn from_name(name: &str) -> Option<Self> {
        if let Some(known) = KNOWN.iter().find(|known| known.1.eq_ignore_ascii_case(name)) {
            return Some(known.0);
        }
        let digits: String = name.chars().filter(|character| !"(), ".contains(*character)).collect();
        let number = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 8)?;
        Some(Self((number >> 16) as u16, number as u16))
    }

    /// Its value representation (PS3.5, section 6.2) for data sets that leave it out.
    pub(super) fn representation(self) -> Vr {
        match self {
            // Group lengths and private creators (PS3.5, sections 7.2 and 7.8.1).
            Self(_, 0) => *b"UL",
            _ => KNOWN.iter().find(|known| known.0 == self).map_or(*b"UN", |known| *known.2),
        }
    }
}

/// A value representation: two letters.
pub(super) type Vr = [u8; 2];

/// True for a representation whose length takes four bytes, behind two that are reserved, where representations are
/// explicit (PS3.5, section 7.1.2).
pub fn has_long_length(vr: &[u8; 2]) -> bool {
    matches!(vr, b"OB" | b"OD" | b"OF" | b"OL" | b"OV" | b"OW" | b"SQ" | b"SV" | b"UC" | b"UN" | b"UR" | b"UT" | b"UV")
}

/// Makes a constant of each attribute that the code asks for, and the table of all.
macro_rules! attributes {
    ($($constant:ident = ($group:literal, $element:literal) $vr:literal $keyword:literal;)*) => {
        $(#[doc = $keyword] pub(super) const $constant: Tag = Tag($group, $element);)*
        const KNOWN: &[(Tag, &str, &Vr)] = &[$(($constant, $keyword, $vr),)*];
    };
}

#[rustfmt::skip]
attributes! {
    MEDIA_STORAGE_CLASS = (0x0002, 0x0002) b"UI" "MediaStorageSOPClassUID";
    MEDIA_STORAGE_INSTANCE = (0x0002, 0x0003) b"UI" "MediaStorageSOPInstanceUID";
    TRANSFER_SYNTAX = (0x0002, 0x0010) b"UI" "TransferSyntaxUID";
    DIRECTORY_RECORDS = (0x0004, 0x1220) b"SQ" "DirectoryRecordSequence";
    RECORD_TYPE = (0x0004, 0x1430) b"CS" "DirectoryRecordType";
    REFERENCED_FILE = (0x0004, 0x1500) b"CS" "ReferencedFileID";
    REFERENCED_CLASS_IN_FILE = (0x0004, 0x1510) b"UI" "ReferencedSOPClassUIDInFile";
    REFERENCED_INSTANCE_IN_FILE = (0x0004, 0x1511) b"UI" "ReferencedSOPInstanceUIDInFile";
    CHARACTER_SET = (0x0008, 0x0005) b"CS" "SpecificCharacterSet";
    IMAGE_TYPE = (0x0008, 0x0008) b"CS" "ImageType";
    CLASS = (0x0008, 0x0016) b"UI" "SOPClassUID";
    INSTANCE = (0x0008, 0x0018) b"UI" "SOPInstanceUID";
    STUDY_DATE = (0x0008, 0x0020) b"DA" "StudyDate";
    SERIES_DATE = (0x0008, 0x0021) b"DA" "SeriesDate";
    ACQUISITION_DATE = (0x0008, 0x0022) b"DA" "AcquisitionDate";
    CONTENT_DATE = (0x0008, 0x0023) b"DA" "ContentDate";
    STUDY_TIME = (0x0008, 0x0030) b"TM" "StudyTime";
    ACCESSION = (0x0008, 0x0050) b"SH" "AccessionNumber";
    MODALITY = (0x0008, 0x0060) b"CS" "Modality";
    PRESENTATION_INTENT = (0x0008, 0x0068) b"CS" "PresentationIntentType";
    MANUFACTURER = (0x0008, 0x0070) b"LO" "Manufacturer";
    INSTITUTION = (0x0008, 0x0080) b"LO" "InstitutionName";
    REFERENCED_SERIES = (0x0008, 0x1115) b"SQ" "ReferencedSeriesSequence";
    REFERENCED_INSTANCES = (0x0008, 0x114a) b"SQ" "ReferencedInstanceSequence";
    REFERENCED_INSTANCE = (0x0008, 0x1155) b"UI" "ReferencedSOPInstanceUID";
    REFERENCED_FRAME = (0x0008, 0x1160) b"IS" "ReferencedFrameNumber";
    SOURCE_IMAGES = (0x0008, 0x2112) b"SQ" "SourceImageSequence";
    DERIVATION_IMAGES = (0x0008, 0x9124) b"SQ" "DerivationImageSequence";
    STUDY_DESCRIPTION = (0x0008, 0x1030) b"LO" "StudyDescription";
    SERIES_DESCRIPTION = (0x0008, 0x103e) b"LO" "SeriesDescription";
    MODEL = (0x0008, 0x1090) b"LO" "ManufacturerModelName";
    PATIENT_NAME = (0x0010, 0x0010) b"PN" "PatientName";
    PATIENT_ID = (0x0010, 0x0020) b"LO" "PatientID";
    BIRTH_DATE = (0x0010, 0x0030) b"DA" "PatientBirthDate";
    SEX = (0x0010, 0x0040) b"CS" "PatientSex";
    AGE = (0x0010, 0x1010) b"AS" "PatientAge";
    PATIENT_SIZE = (0x0010, 0x1020) b"DS" "PatientSize";
    PATIENT_WEIGHT = (0x0010, 0x1030) b"DS" "PatientWeight";
    ETHNIC_GROUP = (0x0010, 0x2160) b"SH" "EthnicGroup";
    BODY_PART = (0x0018, 0x0015) b"CS" "BodyPartExamined";
    SLICE_THICKNESS = (0x0018, 0x0050) b"DS" "SliceThickness";
    KVP = (0x0018, 0x0060) b"DS" "KVP";
    SPACING_BETWEEN_SLICES = (0x0018, 0x0088) b"DS" "SpacingBetweenSlices";
    PROTOCOL = (0x0018, 0x1030) b"LO" "ProtocolName";
    IMAGER_SPACING = (0x0018, 0x1164) b"DS" "ImagerPixelSpacing";
    KERNEL = (0x0018, 0x1210) b"SH" "ConvolutionKernel";
    PATIENT_POSITION = (0x0018, 0x5100) b"CS" "PatientPosition";
    VIEW_POSITION = (0x0018, 0x5101) b"CS" "ViewPosition";
    STUDY = (0x0020, 0x000d) b"UI" "StudyInstanceUID";
    SERIES = (0x0020, 0x000e) b"UI" "SeriesInstanceUID";
    STUDY_ID = (0x0020, 0x0010) b"SH" "StudyID";
    SERIES_NUMBER = (0x0020, 0x0011) b"IS" "SeriesNumber";
    ACQUISITION_NUMBER = (0x0020, 0x0012) b"IS" "AcquisitionNumber";
    INSTANCE_NUMBER = (0x0020, 0x0013) b"IS" "InstanceNumber";
    POSITION = (0x0020, 0x0032) b"DS" "ImagePositionPatient";
    ORIENTATION = (0x0020, 0x0037) b"DS" "ImageOrientationPatient";
    LATERALITY = (0x0020, 0x0060) b"CS" "Laterality";
    IMAGE_LATERALITY = (0x0020, 0x0062) b"CS" "ImageLaterality";
    SLICE_LOCATION = (0x0020, 0x1041) b"DS" "SliceLocation";
    FRAME_OF_REFERENCE = (0x0020, 0x0052) b"UI" "FrameOfReferenceUID";
    PLANE_POSITION = (0x0020, 0x9113) b"SQ" "PlanePositionSequence";
    PLANE_ORIENTATION = (0x0020, 0x9116) b"SQ" "PlaneOrientationSequence";
    ORGANIZATION = (0x0020, 0x9311) b"CS" "DimensionOrganizationType";
    SAMPLES = (0x0028, 0x0002) b"US" "SamplesPerPixel";
    PHOTOMETRIC = (0x0028, 0x0004) b"CS" "PhotometricInterpretation";
    PLANAR = (0x0028, 0x0006) b"US" "PlanarConfiguration";
    FRAMES = (0x0028, 0x0008) b"IS" "NumberOfFrames";
    ROWS = (0x0028, 0x0010) b"US" "Rows";
    COLUMNS = (0x0028, 0x0011) b"US" "Columns";
    PIXEL_SPACING = (0x0028, 0x0030) b"DS" "PixelSpacing";
    BITS_ALLOCATED = (0x0028, 0x0100) b"US" "BitsAllocated";
    BITS_STORED = (0x0028, 0x0101) b"US" "BitsStored";
    HIGH_BIT = (0x0028, 0x0102) b"US" "HighBit";
    PIXEL_REPRESENTATION = (0x0028, 0x0103) b"US" "PixelRepresentation";
    PADDING = (0x0028, 0x0120) b"US" "PixelPaddingValue";
    PADDING_LIMIT = (0x0028, 0x0121) b"US" "PixelPaddingRangeLimit";
    BURNED_IN = (0x0028, 0x0301) b"CS" "BurnedInAnnotation";
    WINDOW_CENTER = (0x0028, 0x1050) b"DS" "WindowCenter";
    WINDOW_WIDTH = (0x0028, 0x1051) b"DS" "WindowWidth";
    RESCALE_INTERCEPT = (0x0028, 0x1052) b"DS" "RescaleIntercept";
    RESCALE_SLOPE = (0x0028, 0x1053) b"DS" "RescaleSlope";
    RESCALE_TYPE = (0x0028, 0x1054) b"LO" "RescaleType";
    WINDOW_EXPLANATION = (0x0028, 0x1055) b"LO" "WindowCenterWidthExplanation";
    VOI_FUNCTION = (0x0028, 0x1056) b"CS" "VOILUTFunction";
    RED_DESCRIPTOR = (0x0028, 0x1101) b"US" "RedPaletteColorLookupTableDescriptor";
    GREEN_DESCRIPTOR = (0x0028, 0x1102) b"US" "GreenPaletteColorLookupTableDescriptor";
    BLUE_DESCRIPTOR = (0x0028, 0x1103) b"US" "BluePaletteColorLookupTableDescriptor";
    RED_TABLE = (0x0028, 0x1201) b"OW" "RedPaletteColorLookupTableData";
    GREEN_TABLE = (0x0028, 0x1202) b"OW" "GreenPaletteColorLookupTableData";
    BLUE_TABLE = (0x0028, 0x1203) b"OW" "BluePaletteColorLookupTableData";
    SEGMENTED_RED_TABLE = (0x0028, 0x1221) b"OW" "SegmentedRedPaletteColorLookupTableData";
    SEGMENTED_GREEN_TABLE = (0x0028, 0x1222) b"OW" "SegmentedGreenPaletteColorLookupTableData";
    SEGMENTED_BLUE_TABLE = (0x0028, 0x1223) b"OW" "SegmentedBluePaletteColorLookupTableData";
    LOSSY = (0x0028, 0x2110) b"CS" "LossyImageCompression";
    LOSSY_RATIO = (0x0028, 0x2112) b"DS" "LossyImageCompressionRatio";
    LOSSY_METHOD = (0x0028, 0x2114) b"CS" "LossyImageCompressionMethod";
    MODALITY_SEQUENCE = (0x0028, 0x3000) b"SQ" "ModalityLUTSequence";
    LUT_DESCRIPTOR = (0x0028, 0x3002) b"US" "LUTDescriptor";
    LUT_EXPLANATION = (0x0028, 0x3003) b"LO" "LUTExplanation";
    LUT_DATA = (0x0028, 0x3006) b"US" "LUTData";
    VOI_SEQUENCE = (0x0028, 0x3010) b"SQ" "VOILUTSequence";
    PIXEL_MEASURES = (0x0028, 0x9110) b"SQ" "PixelMeasuresSequence";
    FRAME_VOI_SEQUENCE = (0x0028, 0x9132) b"SQ" "FrameVOILUTSequence";
    TRANSFORMATION_SEQUENCE = (0x0028, 0x9145) b"SQ" "PixelValueTransformationSequence";
    SEGMENTATION_TYPE = (0x0062, 0x0001) b"CS" "SegmentationType";
    SEGMENTS = (0x0062, 0x0002) b"SQ" "SegmentSequence";
    SEGMENT_NUMBER = (0x0062, 0x0004) b"US" "SegmentNumber";
    SEGMENT_IDENTIFICATION = (0x0062, 0x000a) b"SQ" "SegmentIdentificationSequence";
    SEGMENT_NUMBER_OF_FRAME = (0x0062, 0x000b) b"US" "ReferencedSegmentNumber";
    SHARED_GROUPS = (0x5200, 0x9229) b"SQ" "SharedFunctionalGroupsSequence";
    FRAME_GROUPS = (0x5200, 0x9230) b"SQ" "PerFrameFunctionalGroupsSequence";
    EXTENDED_OFFSETS = (0x7fe0, 0x0001) b"OV" "ExtendedOffsetTable";
    EXTENDED_LENGTHS = (0x7fe0, 0x0002) b"OV" "ExtendedOffsetTableLengths";
    FLOAT_PIXELS = (0x7fe0, 0x0008) b"OF" "FloatPixelData";
    DOUBLE_PIXELS = (0x7fe0, 0x0009) b"OD" "DoubleFloatPixelData";
    PIXELS = (0x7fe0, 0x0010) b"OW" "PixelData";
}
